import { Counter, type OpenMetricsContentType, Registry } from 'prom-client';
import { describe, expect, it } from 'vitest';
import { JOB_METRICS } from '../observe/metrics/catalogue.js';
import { ConfigurationError } from '../operation/errors.js';
import * as api from './index.js';

const { prometheusMetrics } = api;
const NO_GAUGES = async (): Promise<[]> => [];
const labels = { queue: 'charges', job: 'charge', kind: 'first' };

describe('prometheusMetrics', () => {
  it('is all that nestjs-idempotent-jobs/prometheus exports', () => {
    expect(Object.keys(api)).toEqual(['prometheusMetrics']);
  });

  it('registers all metrics when it is opened, not before, and takes them back when it is closed', async () => {
    const registry = new Registry();
    const adapter = prometheusMetrics({ registry });
    expect(registry.getMetricsAsArray()).toEqual([]);
    const metrics = adapter.open(NO_GAUGES);
    expect(registry.getMetricsAsArray()).toHaveLength(Object.keys(JOB_METRICS).length);
    metrics.close();
    expect(registry.getMetricsAsArray()).toEqual([]);
    adapter.open(NO_GAUGES);
    expect(registry.getMetricsAsArray()).toHaveLength(Object.keys(JOB_METRICS).length);
  });

  it('keeps what two applications count in two registries apart', async () => {
    const [one, other] = [new Registry(), new Registry()];
    const counter = prometheusMetrics({ registry: one })
      .open(NO_GAUGES)
      .counter(JOB_METRICS.attemptsStarted, labels);
    prometheusMetrics({ registry: other }).open(NO_GAUGES).counter(JOB_METRICS.attemptsStarted, labels);
    counter.increment();
    const series = 'job_attempts_started_total{queue="charges",job="charge",kind="first"}';
    expect(await one.metrics()).toContain(`${series} 1`);
    expect(await other.metrics()).toContain(`${series} 0`);
  });

  it('refuses a registry that has such metrics already, says what to do, and leaves it as it was', () => {
    const registry = new Registry();
    const taken = new Counter({ name: 'fence_rejected_total', help: 'mine', registers: [registry] });
    expect(() => prometheusMetrics({ registry }).open(NO_GAUGES)).toThrow(ConfigurationError);
    expect(() => prometheusMetrics({ registry }).open(NO_GAUGES)).toThrow(
      /already has a metric "fence_rejected_total".*new Registry\(\).*prefix/,
    );
    expect(registry.getMetricsAsArray()).toEqual([taken]);
  });

  it('shares a registry with another application under a prefix', async () => {
    const registry = new Registry();
    const plain = prometheusMetrics({ registry }).open(NO_GAUGES);
    const prefixed = prometheusMetrics({ registry, prefix: 'billing_' }).open(NO_GAUGES);
    prefixed.counter(JOB_METRICS.attemptsStarted, labels).increment();
    plain.close();
    expect(await registry.metrics()).toContain(
      'billing_job_attempts_started_total{queue="charges",job="charge",kind="first"} 1',
    );
    expect(registry.getSingleMetric('job_attempts_started_total')).toBeUndefined();
  });

  it('leaves a metric alone that somebody else has put in the place of its own', () => {
    const registry = new Registry();
    const metrics = prometheusMetrics({ registry }).open(NO_GAUGES);
    registry.clear();
    const theirs = new Counter({ name: 'fence_rejected_total', help: 'theirs', registers: [registry] });
    metrics.close();
    expect(registry.getMetricsAsArray()).toEqual([theirs]);
  });

  it('works in a registry of OpenMetrics', async () => {
    const registry = new Registry<OpenMetricsContentType>();
    registry.setContentType(Registry.OPENMETRICS_CONTENT_TYPE);
    const metrics = prometheusMetrics({ registry }).open(NO_GAUGES);
    metrics.counter(JOB_METRICS.attemptsStarted, labels).increment();
    for (let scrapes = 0; scrapes < 2; scrapes += 1) {
      expect(await registry.metrics()).toContain(
        'job_attempts_started_total{queue="charges",job="charge",kind="first"} 1',
      );
    }
    metrics.close();
    expect(registry.getMetricsAsArray()).toEqual([]);
  });

  it.each([[{}], [{ registry: undefined }], [{ registry: { metrics: () => '' } }]])(
    'refuses %o, which has no registry',
    (options) => {
      expect(() => prometheusMetrics(options as never)).toThrow(/registry must be a Registry of prom-client/);
    },
  );

  it.each(['9lives', 'my-shop_', 'shop '])('refuses the prefix %j', (prefix) => {
    expect(() => prometheusMetrics({ registry: new Registry(), prefix })).toThrow(ConfigurationError);
  });
});
