import { Counter, Gauge, Histogram, type Registry, type RegistryContentType } from 'prom-client';
import {
  type CounterMetric,
  type HistogramMetric,
  JOB_METRICS,
  type JobMetric,
} from '../observe/metrics/catalogue.js';
import type { MetricsAdapter, OpenMetrics, ReadGauges } from '../observe/metrics/metrics.port.js';
import { ConfigurationError } from '../operation/errors.js';

/** Options of {@link prometheusMetrics}. */
export interface PrometheusMetricsOptions {
  /** Where the metrics go: prom-client's `register`, or a `new Registry()` of the application's own. */
  readonly registry: Registry<RegistryContentType>;
  /** Put before every name, e.g. `billing_`. Default: nothing. */
  readonly prefix?: string;
}

/**
 * Metrics for Prometheus by prom-client 15, in the registry that you serve. They are removed from it when the application
 * closes.
 *
 * ```ts
 * IdempotentJobsModule.forRoot({ metrics: [prometheusMetrics({ registry: register })] });
 * ```
 *
 * @throws ConfigurationError without a registry, or for a prefix that no name can begin with; when the application
 *   starts, also if the registry already has a metric of one of the names
 */
export function prometheusMetrics({ registry, prefix = '' }: PrometheusMetricsOptions): MetricsAdapter {
  if (typeof registry?.registerMetric !== 'function')
    throw new ConfigurationError(
      'prometheusMetrics(): registry must be a Registry of prom-client: its `register`, or a `new Registry()`.',
    );
  if (!/^([a-zA-Z_:][a-zA-Z0-9_:]*)?$/.test(prefix))
    throw new ConfigurationError(
      `prometheusMetrics(): prefix is ${JSON.stringify(prefix)}, but must be a letter or "_" followed by letters, digits or "_", e.g. "billing_".`,
    );
  return { open: (readGauges) => new PrometheusMetrics(registry, prefix, readGauges) };
}

type Registered = Counter | Histogram | Gauge;

/** The metrics of one application in one registry. */
class PrometheusMetrics implements OpenMetrics {
  /** By their names in the catalogue. */
  readonly #registered = new Map<string, Registered>();

  constructor(
    private readonly registry: Registry<RegistryContentType>,
    private readonly prefix: string,
    private readonly readGauges: ReadGauges,
  ) {
    const metrics: readonly JobMetric[] = Object.values(JOB_METRICS);
    for (const { name } of metrics) this.#refuseTaken(prefix + name);
    for (const metric of metrics) this.#registered.set(metric.name, this.#made(metric));
  }

  counter({ name }: CounterMetric, labels: Record<string, string>): { increment(): void } {
    const series = (this.#registered.get(name) as Counter).labels(labels);
    series.inc(0);
    return { increment: () => series.inc() };
  }

  histogram({ name }: HistogramMetric, labels: Record<string, string>): { record(value: number): void } {
    const histogram = this.#registered.get(name) as Histogram;
    histogram.zero(labels);
    const series = histogram.labels(labels);
    return { record: (value) => series.observe(value) };
  }

  close(): void {
    for (const [catalogueName, metric] of this.#registered) {
      const name = this.prefix + catalogueName;
      // The application may have cleared the registry and registered another metric.
      if (this.registry.getSingleMetric(name) === metric) this.registry.removeSingleMetric(name);
    }
  }

  #made(metric: JobMetric): Registered {
    const { readGauges } = this;
    const { kind, name, help, labels } = metric;
    const options = {
      name: this.prefix + name,
      help,
      labelNames: labels,
      registers: [this.registry as Registry],
    };
    if (kind === 'counter') return new Counter<string>(options);
    if (kind === 'histogram') return new Histogram<string>({ ...options, buckets: [...metric.buckets] });
    return new Gauge<string>({
      ...options,
      // For prom-client's cluster registry: all workers read the same value.
      aggregator: 'max',
      async collect() {
        const readings = (await readGauges()).filter((reading) => reading.metric.name === name);
        this.reset();
        // reset() leaves a gauge without labels at 0, which would be a false reading.
        if (labels.length === 0) this.remove();
        for (const reading of readings) this.set(reading.labels, reading.value);
      },
    });
  }

  #refuseTaken(name: string): void {
    if (this.registry.getSingleMetric(name) === undefined) return;
    throw new ConfigurationError(
      `prometheusMetrics(): the registry already has a metric "${name}", perhaps of another application in this process. Give each application a registry of its own (new Registry(), and Registry.merge() to serve several), or a prefix: prometheusMetrics({ registry, prefix: 'billing_' }).`,
    );
  }
}
