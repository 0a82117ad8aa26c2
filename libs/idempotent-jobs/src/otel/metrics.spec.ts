import { metrics } from '@opentelemetry/api';
import {
  AggregationTemporality,
  DataPointType,
  InMemoryMetricExporter,
  MeterProvider,
  PeriodicExportingMetricReader,
} from '@opentelemetry/sdk-metrics';
import { afterEach, describe, expect, it } from 'vitest';
import { JOB_METRICS } from '../observe/metrics/catalogue.js';
import type { GaugeReading } from '../observe/metrics/metrics.port.js';
import { ConfigurationError } from '../operation/errors.js';
import { otelMetrics } from './index.js';

const NO_GAUGES = async (): Promise<[]> => [];
const labels = { queue: 'charges', job: 'charge', kind: 'first' };

/** A provider that tells what it would export. */
function sdk() {
  const exporter = new InMemoryMetricExporter(AggregationTemporality.CUMULATIVE);
  const reader = new PeriodicExportingMetricReader({ exporter, exportIntervalMillis: 1e9 });
  const provider = new MeterProvider({ readers: [reader] });
  const collect = async () => {
    exporter.reset();
    await reader.forceFlush();
    const exported = exporter.getMetrics().at(-1)?.scopeMetrics ?? [];
    return exported.flatMap(({ scope, metrics: all }) =>
      all.map(({ descriptor, dataPointType, dataPoints }) => ({
        scope: scope.name,
        name: descriptor.name,
        unit: descriptor.unit,
        type: DataPointType[dataPointType],
        points: dataPoints.map(({ value, attributes }) => ({ value, attributes })),
      })),
    );
  };
  return { provider, collect };
}

afterEach(() => metrics.disable());

describe('otelMetrics', () => {
  it('names counters without _total, and gives seconds their unit', async () => {
    const { provider, collect } = sdk();
    const open = otelMetrics({ meter: provider.getMeter('shop') }).open(NO_GAUGES);
    open.counter(JOB_METRICS.attemptsStarted, labels).increment();
    open.histogram(JOB_METRICS.wait, labels).record(1.5);
    expect(await collect()).toMatchObject([
      {
        scope: 'shop',
        name: 'job_attempts_started',
        unit: '',
        type: 'SUM',
        points: [{ value: 1, attributes: labels }],
      },
      { name: 'job_wait_seconds', unit: 's', type: 'HISTOGRAM', points: [{ value: { count: 1, sum: 1.5 } }] },
    ]);
  });

  it('takes the global meter provider as it is when the application starts', async () => {
    const adapter = otelMetrics();
    const { provider, collect } = sdk();
    metrics.setGlobalMeterProvider(provider);
    const open = adapter.open(NO_GAUGES);
    open.counter(JOB_METRICS.attemptsStarted, labels);
    expect(await collect()).toMatchObject([
      { scope: 'nestjs-idempotent-jobs', name: 'job_attempts_started' },
    ]);
    open.close();
  });

  it('measures nothing, for any number of applications, without an SDK', () => {
    const both = [otelMetrics().open(NO_GAUGES), otelMetrics().open(NO_GAUGES)];
    for (const open of both) open.counter(JOB_METRICS.attemptsStarted, labels).increment();
    expect(() => both.forEach((open) => open.close())).not.toThrow();
  });

  it('refuses a meter that another application writes to, until that has closed', () => {
    const { provider } = sdk();
    const open = otelMetrics({ meter: provider.getMeter('shop') }).open(NO_GAUGES);
    const again = otelMetrics({ meter: provider.getMeter('shop') });
    expect(() => again.open(NO_GAUGES)).toThrow(ConfigurationError);
    expect(() => again.open(NO_GAUGES)).toThrow(/same meter.*a meter of its own/);
    open.close();
    expect(() => again.open(NO_GAUGES)).not.toThrow();
  });

  it('keeps what two applications count on two meters apart', async () => {
    const { provider, collect } = sdk();
    const one = otelMetrics({ meter: provider.getMeter('shop') }).open(NO_GAUGES);
    const other = otelMetrics({ meter: provider.getMeter('billing') }).open(NO_GAUGES);
    one.counter(JOB_METRICS.attemptsStarted, labels).increment();
    other.counter(JOB_METRICS.attemptsStarted, labels);
    expect((await collect()).map(({ scope, points }) => [scope, points[0]?.value])).toEqual([
      ['shop', 1],
      ['billing', 0],
    ]);
  });

  it('reads gauges when it is collected, once for all of them, and no more after it was closed', async () => {
    const { provider, collect } = sdk();
    let readings = 0;
    const readGauges = async (): Promise<GaugeReading[]> => {
      readings += 1;
      return [
        { metric: JOB_METRICS.dispatchPending, labels: {}, value: 3 },
        { metric: JOB_METRICS.inDoubt, labels: { queue: 'charges' }, value: 1 },
      ];
    };
    const open = otelMetrics({ meter: provider.getMeter('shop') }).open(readGauges);
    expect(readings).toBe(0);
    expect(await collect()).toMatchObject([
      { name: 'dispatch_pending', type: 'GAUGE', points: [{ value: 3 }] },
      { name: 'jobs_in_doubt', points: [{ value: 1, attributes: { queue: 'charges' } }] },
    ]);
    expect(readings).toBe(1);
    open.close();
    await collect();
    expect(readings).toBe(1);
  });

  it('observes no number for a series that can be read no more, which the SDK would go on showing', async () => {
    const { provider, collect } = sdk();
    const readings: GaugeReading[][] = [
      [
        { metric: JOB_METRICS.inDoubt, labels: { queue: 'charges' }, value: 1 },
        { metric: JOB_METRICS.inDoubt, labels: { queue: 'mails' }, value: 2 },
      ],
      [{ metric: JOB_METRICS.inDoubt, labels: { queue: 'mails' }, value: 2 }],
      [{ metric: JOB_METRICS.inDoubt, labels: { queue: 'charges' }, value: 3 }],
    ];
    otelMetrics({ meter: provider.getMeter('shop') }).open(async () => readings.shift() ?? []);
    const values = async (): Promise<unknown[]> =>
      (await collect()).flatMap(({ points }) => points.map(({ value }) => value));
    expect(await values()).toEqual([1, 2]);
    expect(await values()).toEqual([Number.NaN, 2]);
    expect(await values()).toEqual([3, Number.NaN]);
  });
});
