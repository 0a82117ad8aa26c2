import { PrometheusSerializer } from '@opentelemetry/exporter-prometheus';
import { MeterProvider, MetricReader } from '@opentelemetry/sdk-metrics';
import { Registry } from 'prom-client';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { type JobEvent, JobEvents } from '../../events/job-events.js';
import { otelMetrics } from '../../otel/index.js';
import { prometheusMetrics } from '../../prometheus/index.js';
import { JOB_METRICS } from './catalogue.js';
import type { Database } from '../../ledger/postgres/database.js';
import type { QueueRegistry } from '../../producer/queue-registry.js';
import type { Dependencies } from '../../resilience/dependency/dependencies.js';
import { GaugeReader } from './gauge.reader.js';
import { MetricsLifecycle } from './metrics.lifecycle.js';
import type { MetricsAdapter } from './metrics.port.js';
import { parseScrape, type Scrape } from '../../../../../test/support/parse-scrape.js';

/** Collects when it is told to, as an exporter does when it is scraped. */
class ManualReader extends MetricReader {
  protected async onForceFlush(): Promise<void> {}
  protected async onShutdown(): Promise<void> {}
}

interface System {
  readonly adapter: MetricsAdapter;
  scrape(): Promise<string>;
}

function prometheus(): System {
  const registry = new Registry();
  return { adapter: prometheusMetrics({ registry }), scrape: () => registry.metrics() };
}

function otel(): System {
  const reader = new ManualReader();
  const provider = new MeterProvider({ readers: [reader] });
  // No timestamps, no labels of the resource, no target_info, no scope.
  const serializer = new PrometheusSerializer(undefined, false, undefined, true, true);
  return {
    adapter: otelMetrics({ meter: provider.getMeter('shop') }),
    async scrape() {
      const { resourceMetrics, errors } = await reader.collect();
      expect(errors).toEqual([]);
      return serializer.serialize(resourceMetrics);
    },
  };
}

const ROWS = [
  { what: 'letters', queue: 'charges', reason: 'permanent_error', many: 2, oldest_age: 9.5 },
  { what: 'doubts', queue: 'mails', many: 1, oldest_age: 0.125 },
  { what: 'undispatched', many: 7, oldest_age: 0.25 },
];

/** What the gauges are read from, of which the ledger and BullMQ may be out of reach. */
function gaugeReader(ledger = async () => ROWS, depth = async () => DEPTH): GaugeReader {
  const contentsOf = (queue: string) => ({
    depth,
    oldestWaitingMs: async () => (queue === 'charges' ? 61_250 : undefined),
  });
  const states = [
    { name: 'gateway', circuit: 'open' },
    { name: 'mail "server"\\', circuit: 'half_open' },
  ];
  return new GaugeReader(
    { run: ledger } as unknown as Database,
    { names: ['charges', 'mails'], contentsOf, bundlesOf: () => undefined } as unknown as QueueRegistry,
    { states } as unknown as Dependencies,
  );
}

const DEPTH = { waiting: 4, active: 3, delayed: 2, failed: 1 };

const KNOWN = {
  queues: ['charges', 'mails'],
  jobs: [['charges', ['charge', 'refund']]] as const,
  dependencies: ['gateway'],
  isListed: () => true,
};

const charge = {
  queue: 'charges',
  jobName: 'charge',
  jobId: 'op-1',
  tenantId: 'acme',
  operationKey: 'charge:1',
};
const mail = {
  queue: 'mails',
  jobName: 'mail\n"now"',
  jobId: 'op-2',
  tenantId: 'acme',
  operationKey: 'mail:1',
};
const failure = { failure: 'transient', error: 'declined', durationMs: 12.75 } as const;

/** Every kind of event, durations on the bounds of buckets, between them and above the last. */
const SCENARIO: readonly JobEvent[] = [
  { kind: 'enqueued', ...charge, isDuplicate: false },
  { kind: 'enqueued', ...charge, isDuplicate: true },
  { kind: 'started', ...charge, attempt: 1, runId: 'w', waitMs: 10 },
  {
    kind: 'retrying',
    ...charge,
    ...failure,
    attempt: 1,
    delayMs: 5,
    failureCode: 'http_503',
    decision: 'backoff',
  },
  { kind: 'started', ...charge, attempt: 2, runId: 'w' },
  {
    kind: 'retrying',
    ...charge,
    ...failure,
    attempt: 2,
    delayMs: 5,
    failureCode: 'made up',
    decision: 'backoff',
    dependency: 'gateway',
  },
  { kind: 'started', ...charge, attempt: 3, runId: 'w' },
  { kind: 'completed', ...charge, attempt: 3, durationMs: 5, endToEndMs: 60_000 },
  { kind: 'replayed', ...charge },
  { kind: 'started', ...mail, attempt: 1, runId: 'w', waitMs: 1e9 },
  { kind: 'completed', ...mail, attempt: 1, durationMs: 5.001, endToEndMs: 0, degraded: 'gateway: timeout' },
  {
    kind: 'in_doubt',
    ...mail,
    ...failure,
    attempt: 1,
    failure: 'in_doubt',
    failureCode: 'timeout',
    delayMs: 5000,
  },
  { kind: 'in_doubt', ...mail, ...failure, attempt: 2, failure: 'in_doubt', failureCode: 'ECONNRESET' },
  { kind: 'reconciled', ...mail, attempt: 1, verdict: 'unknown' },
  {
    kind: 'dead',
    ...charge,
    ...failure,
    durationMs: 400_000,
    attempt: 20,
    reason: 'crash_loop',
    failureCode: 'timeout',
  },
  {
    kind: 'dead',
    ...charge,
    ...failure,
    attempt: 0,
    reason: 'idempotency_conflict',
    failureCode: 'idempotency_conflict',
  },
  { kind: 'deferred', ...charge, delayMs: 1, cause: 'busy', detail: 'busy: …' },
  { kind: 'deferred', ...charge, delayMs: 1, cause: 'circuit_open', detail: '…', dependency: 'gateway' },
  { kind: 'taken_over', ...charge, attempt: 1, from: 'w' },
  { kind: 'abandoned', ...charge, attempt: 1, by: 'timeout' },
  { kind: 'late_result_discarded', ...charge, how: 'threw' },
  { kind: 'fence_rejected', ...charge, attempt: 1 },
  { kind: 'letter_closed', ...charge, letterId: '5f2b', as: 'not_applied', actor: 'ada' },
  { kind: 'letter_dropped', queue: 'charges-dlq', jobName: 'dead-letter', jobId: '1', reason: 'unknown' },
  { kind: 'circuit_changed', dependency: 'gateway', state: 'open' },
  { kind: 'circuit_changed', dependency: 'unheard of', state: 'open' },
  { kind: 'dependency_timeout', ...charge, dependency: 'gateway' },
  { kind: 'dependency_timeout', dependency: 'gateway' },
  { kind: 'retry_budget_denied', dependency: 'gateway' },
  { kind: 'fallback_used', ...charge, dependency: 'gateway', reason: 'retry_budget_spent' },
  { kind: 'handed_back', ...charge, times: 1 },
  { kind: 'handed_back', ...charge, times: 2 },
];

let systems: { prometheus: System; otel: System };
let events: JobEvents;
let lifecycle: MetricsLifecycle;

function start(gauges = gaugeReader()): void {
  systems = { prometheus: prometheus(), otel: otel() };
  events = new JobEvents();
  const adapters = [systems.prometheus.adapter, systems.otel.adapter];
  lifecycle = new MetricsLifecycle(adapters, events, gauges, () => undefined);
  lifecycle.start(KNOWN);
}

async function scrape(): Promise<{ prometheus: Scrape; otel: Scrape }> {
  return {
    prometheus: parseScrape(await systems.prometheus.scrape()),
    otel: parseScrape(await systems.otel.scrape()),
  };
}

/** OpenTelemetry has no histogram without a value, where prom-client has one of zeros. */
function withoutEmptyHistograms({ series }: Scrape): Record<string, number> {
  const empty = new Set(
    Object.entries(series).flatMap(([name, value]) =>
      value === 0 && /_count\b/.test(name) ? [name.replace('_count', '')] : [],
    ),
  );
  const histograms = Object.values(JOB_METRICS).filter(({ kind }) => kind === 'histogram');
  return Object.fromEntries(
    Object.entries(series).filter(([name, value]) => {
      const base = name.replace(/_(bucket|sum|count)(?=[{]|$)/, '').replace(/,?le="[^"]*"/, '');
      const isOfHistogram = histograms.some((histogram) => base.startsWith(`${histogram.name}{`));
      if (!isOfHistogram || !empty.has(base)) return true;
      expect(value).toBe(0);
      return false;
    }),
  );
}

describe('metrics by prom-client and by OpenTelemetry', () => {
  beforeEach(() => start());
  afterEach(() => lifecycle.stop());

  it('are the same, series by series, after one of everything', async () => {
    for (const event of [...SCENARIO, ...SCENARIO.slice(0, 9)]) events.emit(event);
    const { prometheus, otel } = await scrape();
    expect(withoutEmptyHistograms(prometheus)).toEqual(otel.series);
    expect(prometheus.types).toEqual(otel.types);
    expect(prometheus.help).toEqual(otel.help);
  });

  it('are all that the catalogue has', async () => {
    for (const event of SCENARIO) events.emit(event);
    const { prometheus } = await scrape();
    expect(prometheus.types).toEqual(
      Object.fromEntries(Object.values(JOB_METRICS).map(({ name, kind }) => [name, kind])),
    );
  });

  it('count, sum and sort into buckets what was told', async () => {
    for (const event of SCENARIO) events.emit(event);
    for (const { series } of Object.values(await scrape())) {
      expect(series).toMatchObject({
        'job_attempts_started_total{job="charge",kind="first",queue="charges"}': 1,
        'job_attempts_started_total{job="charge",kind="retry",queue="charges"}': 2,
        'jobs_processed_total{job="mail\\n\\"now\\"",queue="mails",result="degraded"}': 1,
        'retry_attempts_total{dependency="gateway",job="charge",queue="charges",reason="other"}': 1,
        'job_duration_seconds_count{job="charge",queue="charges"}': 4,
        'job_duration_seconds_bucket{job="charge",le="0.005",queue="charges"}': 1,
        'job_duration_seconds_bucket{job="charge",le="300",queue="charges"}': 3,
        'job_duration_seconds_bucket{job="charge",le="+Inf",queue="charges"}': 4,
        'job_duration_seconds_bucket{job="mail\\n\\"now\\"",le="0.005",queue="mails"}': 0,
        'job_retry_count_bucket{job="charge",le="13",queue="charges"}': 1,
        'job_retry_count_sum{job="charge",queue="charges"}': 21,
        'queue_depth{queue="mails",state="delayed"}': 2,
        'queue_oldest_message_age_seconds{queue="charges"}': 61.25,
        'dead_letter_open{queue="charges",reason="permanent_error"}': 2,
        'circuit_breaker_state{dependency="mail \\"server\\"\\\\"}': 1,
        dispatch_pending: 7,
      });
    }
  });

  it('are there with 0 before anything has happened, for all that is known', async () => {
    const { prometheus, otel } = await scrape();
    expect(withoutEmptyHistograms(prometheus)).toEqual(otel.series);
    expect(otel.series).toMatchObject({
      'jobs_processed_total{job="refund",queue="charges",result="dead"}': 0,
      'dead_letter_messages_total{queue="mails",reason="in_doubt"}': 0,
      'circuit_breaker_open_total{dependency="gateway"}': 0,
    });
    expect(prometheus.series['job_wait_seconds_count{job="refund",queue="charges"}']).toBe(0);
  });
});

describe('gauges that cannot be read', () => {
  const failing = (): Promise<never> => Promise.reject(new Error('out of reach'));

  afterEach(() => {
    lifecycle.stop();
    vi.useRealTimers();
  });

  it('are left out of both, also where they have no labels, and all else stays', async () => {
    start(gaugeReader(failing, failing));
    events.emit({ kind: 'replayed', ...charge });
    const { prometheus, otel } = await scrape();
    expect(withoutEmptyHistograms(prometheus)).toEqual(otel.series);
    const gauges = Object.values(JOB_METRICS).filter(({ kind }) => kind === 'gauge');
    const shown = gauges.filter(({ name }) =>
      Object.keys(otel.series).some((series) => series.startsWith(name)),
    );
    expect(shown).toEqual([JOB_METRICS.circuitState]);
  });

  it('have no number any more when they had one before, and get one again', async () => {
    let isReachable = true;
    vi.useFakeTimers({ toFake: ['performance'] });
    start(gaugeReader(async () => (isReachable ? ROWS : failing())));
    const pending = async (): Promise<(number | undefined)[]> =>
      Object.values(await scrape()).map(({ series }) => series['dispatch_pending']);
    expect(await pending()).toEqual([7, 7]);
    isReachable = false;
    vi.advanceTimersByTime(10_000);
    // OpenTelemetry cannot take a series back, only say that it has no number.
    expect(await pending()).toEqual([undefined, Number.NaN]);
    isReachable = true;
    vi.advanceTimersByTime(10_000);
    expect(await pending()).toEqual([7, 7]);
  });
});
