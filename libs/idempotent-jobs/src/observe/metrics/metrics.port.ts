import type { CounterMetric, GaugeMetric, HistogramMetric } from './catalogue.js';

/** A value for each label of a metric. */
export type Labels<L extends string = string> = Readonly<Record<L, string>>;

/** One series of a counter. */
export interface CounterSeries {
  increment(): void;
}

/** One series of a histogram. */
export interface HistogramSeries {
  record(value: number): void;
}

/** The current value of one series of a gauge. */
export interface GaugeReading {
  readonly metric: GaugeMetric;
  readonly labels: Labels;
  readonly value: number;
}

/**
 * Reads all gauges. Never rejects, and takes 2 s at most: a gauge that could not be read is missing, and must be left out
 * rather than shown with its old value. May be called at any rate: a reading is reused for 10 s.
 */
export type ReadGauges = () => Promise<readonly GaugeReading[]>;

/**
 * The destination of metrics: what `forRoot({ metrics: […] })` takes. `prometheusMetrics()` and `otelMetrics()` make one;
 * write your own for anything else.
 */
export interface MetricsAdapter {
  /**
   * Called when the application starts, before its workers do.
   *
   * @throws ConfigurationError if it cannot open, which stops the start of the application
   */
  open(readGauges: ReadGauges): OpenMetrics;
}

/** An adapter at work for one application. */
export interface OpenMetrics {
  /**
   * Makes a series, which exists from now on, at 0. Called once per series. Its `increment()` is called in the path of
   * jobs, and must be fast.
   */
  counter<L extends string>(metric: CounterMetric<L>, labels: Labels<NoInfer<L>>): CounterSeries;
  /** Works like {@link counter}. */
  histogram<L extends string>(metric: HistogramMetric<L>, labels: Labels<NoInfer<L>>): HistogramSeries;
  /** Called when the workers have stopped: undoes everything that {@link MetricsAdapter.open} did. */
  close(): void;
}
