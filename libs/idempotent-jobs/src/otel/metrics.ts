import {
  type BatchObservableCallback,
  type Counter,
  createNoopMeter,
  type Histogram,
  type Meter,
  metrics,
  type ObservableGauge,
} from '@opentelemetry/api';
import {
  type CounterMetric,
  type HistogramMetric,
  JOB_METRICS,
  type JobMetric,
} from '../observe/metrics/catalogue.js';
import type { Labels, MetricsAdapter, OpenMetrics, ReadGauges } from '../observe/metrics/metrics.port.js';
import { ConfigurationError } from '../operation/errors.js';

/** Options of {@link otelMetrics}. */
export interface OtelMetricsOptions {
  /** Default: the global meter provider's meter `nestjs-idempotent-jobs`, looked up when the application starts. */
  readonly meter?: Meter;
}

/**
 * Metrics by the OpenTelemetry API; the application brings the SDK and its exporters. Start the SDK before the
 * application: a meter that was made before the SDK measures nothing.
 *
 * ```ts
 * IdempotentJobsModule.forRoot({ metrics: [otelMetrics()] });
 * ```
 *
 * @throws ConfigurationError when the application starts and another one in this process writes to the same meter
 */
export function otelMetrics({ meter }: OtelMetricsOptions = {}): MetricsAdapter {
  return {
    open: (readGauges) => new OtelMetrics(meter ?? metrics.getMeter('nestjs-idempotent-jobs'), readGauges),
  };
}

/**
 * The meters that applications of this process write to. A meter returns the same instrument for the same name: the
 * numbers of two applications would silently be added up.
 */
const metersInUse = new WeakSet<Meter>();

/** A series of a gauge. */
interface ObservedSeries {
  readonly gauge: ObservableGauge;
  readonly labels: Labels;
}

/** The metrics of one application on one meter. */
class OtelMetrics implements OpenMetrics {
  readonly #counters = new Map<string, Counter>();
  readonly #histograms = new Map<string, Histogram>();
  readonly #gauges = new Map<string, ObservableGauge>();
  /** The series of gauges that have been observed, by metric and labels. */
  readonly #observed = new Map<string, ObservedSeries>();

  constructor(
    private readonly meter: Meter,
    private readonly readGauges: ReadGauges,
  ) {
    this.#occupy();
    for (const metric of Object.values(JOB_METRICS)) {
      const name = nameOf(metric);
      const options = { description: metric.help, ...(name.endsWith('_seconds') && { unit: 's' }) };
      if (metric.kind === 'gauge') this.#gauges.set(metric.name, meter.createObservableGauge(name, options));
      else if (metric.kind === 'counter') this.#counters.set(metric.name, meter.createCounter(name, options));
      else {
        const advice = { explicitBucketBoundaries: [...metric.buckets] };
        this.#histograms.set(metric.name, meter.createHistogram(name, { ...options, advice }));
      }
    }
    meter.addBatchObservableCallback(this.#observe, [...this.#gauges.values()]);
  }

  counter({ name }: CounterMetric, labels: Record<string, string>): { increment(): void } {
    const counter = this.#counters.get(name) as Counter;
    counter.add(0, labels);
    return { increment: () => counter.add(1, labels) };
  }

  /** A series begins with its first value: OpenTelemetry has no empty histograms. */
  histogram({ name }: HistogramMetric, labels: Record<string, string>): { record(value: number): void } {
    const histogram = this.#histograms.get(name) as Histogram;
    return { record: (value) => histogram.record(value, labels) };
  }

  /** Instruments stay, with what they have counted: OpenTelemetry has no way to remove one. */
  close(): void {
    this.meter.removeBatchObservableCallback(this.#observe, [...this.#gauges.values()]);
    metersInUse.delete(this.meter);
  }

  readonly #observe: BatchObservableCallback = async (result) => {
    const missing = new Map(this.#observed);
    for (const { metric, labels, value } of await this.readGauges()) {
      const gauge = this.#gauges.get(metric.name);
      if (gauge === undefined) continue;
      const series = metric.name + JSON.stringify(labels);
      this.#observed.set(series, { gauge, labels });
      missing.delete(series);
      result.observe(gauge, value, labels);
    }
    // Without NaN, the SDK would go on showing the last value of a series that is not observed.
    for (const { gauge, labels } of missing.values()) result.observe(gauge, Number.NaN, labels);
  };

  #occupy(): void {
    // Without an SDK all applications share one meter, which measures nothing.
    if (this.meter === createNoopMeter()) return;
    if (metersInUse.has(this.meter))
      throw new ConfigurationError(
        "otelMetrics(): another application in this process writes to the same meter, and their numbers would be added up. Give each a meter of its own: otelMetrics({ meter: metrics.getMeter('billing') }).",
      );
    metersInUse.add(this.meter);
  }
}

/** OpenTelemetry's counters have no `_total`; exporters to Prometheus add it. */
function nameOf({ name }: JobMetric): string {
  return name.replace(/_total$/, '');
}
