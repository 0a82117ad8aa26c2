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

/** What one series of a gauge stands at. */
export interface GaugeReading {
  readonly metric: GaugeMetric;
  readonly labels: Labels;
  readonly value: number;
}

/**
 * Reads all gauges. Never rejects, and takes 2 s at most: what could not be read is missing, and must be left out
 * rather than shown as it was. May be called as often as one likes: the same reading is given out for 10 s.
 */
export type ReadGauges = () => Promise<readonly GaugeReading[]>;

/**
 * Where metrics go: what `forRoot({ metrics: […] })` takes. `prometheusMetrics()` and `otelMetrics()` make one; write
 * your own for anything else.
 */
export interface MetricsAdapter {
  /**
   * Called when the application starts, before its workers do.
   *
   * @throws ConfigurationError if it cannot, which keeps the application from starting
   */
  open(readGauges: ReadGauges): OpenMetrics;
}

/** An adapter at work for one application. */
export interface OpenMetrics {
  /**
   * A series, which is to exist from now on, at 0. Called once per series; its `increment()` is called on the path of
   * jobs, and must be quick.
   */
  counter<L extends string>(metric: CounterMetric<L>, labels: Labels<NoInfer<L>>): CounterSeries;
  /** As {@link counter}. */
  histogram<L extends string>(metric: HistogramMetric<L>, labels: Labels<NoInfer<L>>): HistogramSeries;
  /** Called when the workers have stopped: takes everything back that {@link MetricsAdapter.open} did. */
  close(): void;
}
