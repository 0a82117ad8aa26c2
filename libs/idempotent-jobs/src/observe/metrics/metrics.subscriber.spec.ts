import { describe, expect, it } from 'vitest';
import type { JobEvent } from '../../events/job-events.js';
import { JOB_METRICS } from './catalogue.js';
import type { Labels, OpenMetrics } from './metrics.port.js';
import { type KnownNames, MetricsSubscriber } from './metrics.subscriber.js';

const NOTHING_KNOWN: KnownNames = { queues: [], jobs: [], dependencies: [], isListed: () => true };

/** Writes down each series, and what it stands at: a number, or the values that were recorded. */
class Ledger implements OpenMetrics {
  readonly made: string[] = [];
  readonly counters = new Map<string, number>();
  readonly values = new Map<string, number[]>();

  counter({ name }: { name: string }, labels: Labels): { increment(): void } {
    const series = this.#make(name, labels);
    this.counters.set(series, 0);
    return { increment: () => this.counters.set(series, (this.counters.get(series) ?? 0) + 1) };
  }

  histogram({ name }: { name: string }, labels: Labels): { record(value: number): void } {
    const values: number[] = [];
    this.values.set(this.#make(name, labels), values);
    return { record: (value) => values.push(value) };
  }

  close(): void {}

  /** All that is not 0 or empty. */
  get changed(): Record<string, number | number[]> {
    return Object.fromEntries(
      [...this.counters, ...this.values].filter(([, value]) =>
        typeof value === 'number' ? value > 0 : value.length > 0,
      ),
    );
  }

  #make(name: string, labels: Labels): string {
    const series = `${name}{${Object.entries(labels)
      .map(([label, value]) => `${label}=${value}`)
      .join(',')}}`;
    this.made.push(series);
    return series;
  }
}

function subscriber(known: Partial<KnownNames> = {}) {
  const ledger = new Ledger();
  const { count } = new MetricsSubscriber(ledger, { ...NOTHING_KNOWN, ...known });
  return { ledger, count };
}

const subject = {
  queue: 'charges',
  jobName: 'charge',
  jobId: 'op-1',
  tenantId: 'acme',
  operationKey: 'charge:order-17:1',
};
const failed = { attempt: 2, durationMs: 250, failure: 'transient', error: 'declined: 4242' } as const;
const J = 'queue=charges,job=charge';

const TABLE: [title: string, event: JobEvent, changed: Record<string, number | number[]>][] = [
  ['a new operation', { kind: 'enqueued', ...subject, isDuplicate: false }, {}],
  [
    'an operation that was there',
    { kind: 'enqueued', ...subject, isDuplicate: true },
    { [`idempotency_key_reused_total{${J},kind=duplicate}`]: 1 },
  ],
  [
    'a first attempt',
    { kind: 'started', ...subject, attempt: 1, runId: 'w', waitMs: 1500 },
    { [`job_attempts_started_total{${J},kind=first}`]: 1, [`job_wait_seconds{${J}}`]: [1.5] },
  ],
  [
    'another attempt',
    { kind: 'started', ...subject, attempt: 3, runId: 'w' },
    { [`job_attempts_started_total{${J},kind=retry}`]: 1 },
  ],
  [
    'a success at the third attempt',
    { kind: 'completed', ...subject, attempt: 3, durationMs: 40, endToEndMs: 9000 },
    {
      [`jobs_processed_total{${J},result=completed}`]: 1,
      [`job_retry_count{${J}}`]: [2],
      [`job_duration_seconds{${J}}`]: [0.04],
      [`job_end_to_end_seconds{${J}}`]: [9],
    },
  ],
  [
    'a success by a fallback',
    {
      kind: 'completed',
      ...subject,
      attempt: 1,
      durationMs: 40,
      endToEndMs: 50,
      degraded: 'gateway: timeout',
    },
    {
      [`jobs_processed_total{${J},result=degraded}`]: 1,
      [`job_retry_count{${J}}`]: [0],
      [`job_duration_seconds{${J}}`]: [0.04],
      [`job_end_to_end_seconds{${J}}`]: [0.05],
    },
  ],
  [
    'a recorded result',
    { kind: 'replayed', ...subject },
    {
      [`jobs_processed_total{${J},result=replayed}`]: 1,
      [`idempotency_key_reused_total{${J},kind=replayed}`]: 1,
    },
  ],
  [
    'a failure with another attempt after it',
    { kind: 'retrying', ...subject, ...failed, delayMs: 5, failureCode: 'http_503', decision: 'backoff' },
    {
      [`jobs_processed_total{${J},result=retrying}`]: 1,
      [`job_failures_total{${J},kind=transient,reason=http_5xx}`]: 1,
      [`retry_attempts_total{${J},dependency=,reason=http_5xx}`]: 1,
      [`job_duration_seconds{${J}}`]: [0.25],
    },
  ],
  [
    'a failure of a dependency for a reason that the application made up',
    {
      kind: 'retrying',
      ...subject,
      ...failed,
      delayMs: 5,
      failureCode: 'card_4242_declined',
      decision: 'backoff',
      dependency: 'gateway',
    },
    {
      [`jobs_processed_total{${J},result=retrying}`]: 1,
      [`job_failures_total{${J},kind=transient,reason=other}`]: 1,
      [`retry_attempts_total{${J},dependency=gateway,reason=other}`]: 1,
      [`job_duration_seconds{${J}}`]: [0.25],
    },
  ],
  [
    'a doubt that the service is asked about',
    { kind: 'in_doubt', ...subject, ...failed, failure: 'in_doubt', failureCode: 'timeout', delayMs: 5000 },
    {
      [`jobs_processed_total{${J},result=in_doubt}`]: 1,
      [`job_failures_total{${J},kind=in_doubt,reason=timeout}`]: 1,
      [`job_duration_seconds{${J}}`]: [0.25],
    },
  ],
  [
    'a doubt of an attempt that vanished, with nobody to ask',
    {
      kind: 'in_doubt',
      ...subject,
      ...failed,
      durationMs: 0,
      failure: 'in_doubt',
      failureCode: 'lease_expired',
      isVanished: true,
    },
    {
      [`jobs_processed_total{${J},result=in_doubt}`]: 1,
      [`job_failures_total{${J},kind=in_doubt,reason=lease_expired}`]: 1,
      'dead_letter_messages_total{queue=charges,reason=in_doubt}': 1,
    },
  ],
  [
    'a death of too many attempts',
    { kind: 'dead', ...subject, ...failed, reason: 'retries_exhausted', failureCode: 'http_503' },
    {
      [`jobs_processed_total{${J},result=dead}`]: 1,
      [`job_failures_total{${J},kind=transient,reason=http_5xx}`]: 1,
      [`retry_exhausted_total{${J},reason=retries_exhausted}`]: 1,
      [`job_retry_count{${J}}`]: [1],
      [`job_duration_seconds{${J}}`]: [0.25],
      'dead_letter_messages_total{queue=charges,reason=retries_exhausted}': 1,
    },
  ],
  [
    'a death for good',
    {
      kind: 'dead',
      ...subject,
      ...failed,
      failure: 'permanent',
      reason: 'permanent_error',
      failureCode: 'unclassified',
    },
    {
      [`jobs_processed_total{${J},result=dead}`]: 1,
      [`job_failures_total{${J},kind=permanent,reason=other}`]: 1,
      [`job_retry_count{${J}}`]: [1],
      [`job_duration_seconds{${J}}`]: [0.25],
      'dead_letter_messages_total{queue=charges,reason=permanent_error}': 1,
    },
  ],
  [
    'a delivery given up before any attempt, whose key is another request’s',
    {
      kind: 'dead',
      ...subject,
      attempt: 0,
      durationMs: 0,
      failure: 'permanent',
      error: 'e',
      reason: 'idempotency_conflict',
      failureCode: 'idempotency_conflict',
    },
    {
      [`jobs_processed_total{${J},result=dead}`]: 1,
      [`idempotency_key_reused_total{${J},kind=conflict}`]: 1,
      'dead_letter_messages_total{queue=charges,reason=idempotency_conflict}': 1,
    },
  ],
  [
    'a follow-up whose key is another request’s, which no delivery is about',
    {
      kind: 'dead',
      ...subject,
      isFollowUp: true,
      attempt: 0,
      durationMs: 0,
      failure: 'permanent',
      error: 'e',
      reason: 'idempotency_conflict',
      failureCode: 'idempotency_conflict',
    },
    {
      [`idempotency_key_reused_total{${J},kind=conflict}`]: 1,
      'dead_letter_messages_total{queue=charges,reason=idempotency_conflict}': 1,
    },
  ],
  [
    'an operation that must not be tried again, whose attempts were counted',
    {
      kind: 'dead',
      ...subject,
      ...failed,
      durationMs: 0,
      failure: 'permanent',
      reason: 'crash_loop',
      failureCode: 'crash_loop',
    },
    {
      [`jobs_processed_total{${J},result=dead}`]: 1,
      [`retry_exhausted_total{${J},reason=crash_loop}`]: 1,
      [`job_retry_count{${J}}`]: [1],
      'dead_letter_messages_total{queue=charges,reason=crash_loop}': 1,
    },
  ],
  [
    'a doubt that nobody could tell about in the end, whose attempt was counted',
    { kind: 'in_doubt', ...subject, ...failed, durationMs: 0, failure: 'in_doubt', failureCode: 'unknown' },
    {
      [`jobs_processed_total{${J},result=in_doubt}`]: 1,
      'dead_letter_messages_total{queue=charges,reason=in_doubt}': 1,
    },
  ],
  ...(
    [
      ['dead', 'dead'],
      ['in_doubt', 'in_doubt'],
      ['buried', 'dead'],
    ] as const
  ).map(([because, result]): [string, JobEvent, Record<string, number>] => [
    `a delivery with nothing left to do: ${because}`,
    { kind: 'refused', ...subject, reason },
    { [`jobs_processed_total{${J},result=${result}}`]: 1 },
  ]),
  [
    'a job that its handler put off',
    { kind: 'handed_back', ...subject, times: 1 },
    {
      [`jobs_processed_total{${J},result=deferred}`]: 1,
      [`jobs_handed_back_total{${J},kind=first}`]: 1,
    },
  ],
  [
    'a job that its handler put off again',
    { kind: 'handed_back', ...subject, times: 2 },
    {
      [`jobs_processed_total{${J},result=deferred}`]: 1,
      [`jobs_handed_back_total{${J},kind=again}`]: 1,
    },
  ],
  [
    'a question that is asked again later',
    { kind: 'reconciled', ...subject, attempt: 1, verdict: 'unknown', delayMs: 5000 },
    { [`jobs_processed_total{${J},result=deferred}`]: 1 },
  ],
  [
    'a step that died, of which its job will tell',
    {
      kind: 'dead',
      ...subject,
      ...failed,
      stepOf: 'charge:order-17',
      reason: 'permanent_error',
      failureCode: 'declined',
    },
    { 'dead_letter_messages_total{queue=charges,reason=permanent_error}': 1 },
  ],
  [
    'a step in doubt, with nobody to ask',
    {
      kind: 'in_doubt',
      ...subject,
      ...failed,
      stepOf: 'charge:order-17',
      failure: 'in_doubt',
      failureCode: 'timeout',
    },
    { 'dead_letter_messages_total{queue=charges,reason=in_doubt}': 1 },
  ],
  [
    'a step in doubt that the service is asked about',
    {
      kind: 'in_doubt',
      ...subject,
      ...failed,
      stepOf: 'charge:order-17',
      failure: 'in_doubt',
      failureCode: 'timeout',
      delayMs: 5000,
    },
    {},
  ],
  [
    'a delivery whose operation runs elsewhere',
    { kind: 'deferred', ...subject, delayMs: 200, cause: 'busy', detail: 'busy: …' },
    {
      [`jobs_processed_total{${J},result=deferred}`]: 1,
      [`idempotency_key_reused_total{${J},kind=busy}`]: 1,
      'jobs_deferred_total{queue=charges,dependency=,reason=busy}': 1,
    },
  ],
  [
    'a delivery that a dependency lets not through',
    {
      kind: 'deferred',
      ...subject,
      delayMs: 200,
      cause: 'circuit_open',
      detail: '…',
      dependency: 'gateway',
    },
    {
      [`jobs_processed_total{${J},result=deferred}`]: 1,
      'jobs_deferred_total{queue=charges,dependency=gateway,reason=circuit_open}': 1,
    },
  ],
  [
    'an end that came too late',
    { kind: 'fence_rejected', ...subject, attempt: 1 },
    { 'fence_rejected_total{queue=charges}': 1 },
  ],
  ...(
    [
      ['redriven', 'redriven'],
      ['not_applied', 'redriven'],
      ['completed', 'completed'],
      ['applied', undefined],
      ['discarded', undefined],
    ] as const
  ).map(([as, result]): [string, JobEvent, Record<string, number>] => [
    `a letter closed as ${as}`,
    { kind: 'letter_closed', ...subject, letterId: '5f2b', as, actor: 'ada' },
    result === undefined ? {} : { [`dead_letter_redriven_total{queue=charges,result=${result}}`]: 1 },
  ]),
  ...(['open', 'half_open', 'closed', 'forced_open', 'forced_closed'] as const).map(
    (state): [string, JobEvent, Record<string, number>] => [
      `a circuit that is ${state} now`,
      { kind: 'circuit_changed', dependency: 'gateway', state },
      state === 'open' ? { 'circuit_breaker_open_total{dependency=gateway}': 1 } : {},
    ],
  ),
  [
    'a timeout in a job',
    { kind: 'dependency_timeout', ...subject, dependency: 'gateway' },
    { 'dependency_timeout_total{dependency=gateway,queue=charges}': 1 },
  ],
  [
    'a timeout outside of any job',
    { kind: 'dependency_timeout', dependency: 'gateway' },
    { 'dependency_timeout_total{dependency=gateway,queue=}': 1 },
  ],
  [
    'a retry that was held back',
    { kind: 'retry_budget_denied', ...subject, dependency: 'gateway' },
    { 'retry_budget_denied_total{dependency=gateway}': 1 },
  ],
  [
    'an answer of a fallback',
    { kind: 'fallback_used', ...subject, dependency: 'gateway', reason: 'timeout' },
    { 'fallback_used_total{dependency=gateway,reason=timeout}': 1 },
  ],
  ['an answered question', { kind: 'reconciled', ...subject, attempt: 1, verdict: 'applied' }, {}],
  ['a claim taken over', { kind: 'taken_over', ...subject, attempt: 1, from: 'w' }, {}],
  ['an attempt nobody waits for', { kind: 'abandoned', ...subject, attempt: 1, by: 'timeout' }, {}],
  ['a late end', { kind: 'late_result_discarded', ...subject, how: 'returned' }, {}],
];

describe('MetricsSubscriber', () => {
  it.each(TABLE)('counts %s', (_title, event, changed) => {
    const { ledger, count } = subscriber();
    count(event);
    expect(ledger.changed).toEqual(changed);
  });

  it('makes each series once, and none of an event that it has seen the like of', () => {
    const { ledger, count } = subscriber();
    for (const [, event] of TABLE) count(event);
    const { length } = ledger.made;
    expect(new Set(ledger.made).size).toBe(length);
    for (const [, event] of TABLE) count(event);
    expect(ledger.made).toHaveLength(length);
  });

  it('gives each series the labels of the catalogue, no more and no less', () => {
    const { ledger, count } = subscriber();
    for (const [, event] of TABLE) count(event);
    const labelsOf = new Map(Object.values(JOB_METRICS).map(({ name, labels }) => [name, labels]));
    for (const series of ledger.made) {
      const [name = '', labels = ''] = series.slice(0, -1).split('{');
      expect(labels.split(',').map((label) => label.split('=')[0])).toEqual(labelsOf.get(name));
    }
  });

  it('lets nothing of a tenant, a key, an id or a message into a label', () => {
    const { ledger, count } = subscriber();
    for (const [, event] of TABLE) count(event);
    expect(ledger.made.join('\n')).not.toMatch(/acme|order-17|op-1|4242|5f2b|ada/);
  });

  it('has the series of all that is known from the start, at 0', () => {
    const { ledger } = subscriber({
      queues: ['charges'],
      jobs: [['charges', ['charge', 'refund']]],
      dependencies: ['gateway'],
    });
    expect(ledger.changed).toEqual({});
    expect([...ledger.counters.keys(), ...ledger.values.keys()]).toEqual(
      expect.arrayContaining([
        `job_attempts_started_total{${J},kind=retry}`,
        'jobs_processed_total{queue=charges,job=refund,result=in_doubt}',
        `retry_exhausted_total{${J},reason=crash_loop}`,
        `idempotency_key_reused_total{${J},kind=conflict}`,
        `job_end_to_end_seconds{${J}}`,
        'dead_letter_messages_total{queue=charges,reason=tenant_mismatch}',
        'dead_letter_redriven_total{queue=charges,result=redriven}',
        'fence_rejected_total{queue=charges}',
        'jobs_deferred_total{queue=charges,dependency=,reason=unavailable}',
        'jobs_deferred_total{queue=charges,dependency=gateway,reason=bulkhead_full}',
        'circuit_breaker_open_total{dependency=gateway}',
        'retry_budget_denied_total{dependency=gateway}',
        'fallback_used_total{dependency=gateway,reason=failed}',
        'dependency_timeout_total{dependency=gateway,queue=}',
        'dependency_timeout_total{dependency=gateway,queue=charges}',
      ]),
    );
  });

  it('calls the 51st job of a queue, and all after it, other; the known ones count first', () => {
    const { ledger, count } = subscriber({ queues: ['charges'], jobs: [['charges', ['known']]] });
    const started = (queue: string, jobName: string): void =>
      count({ kind: 'started', ...subject, queue, jobName, attempt: 1, runId: 'w' });
    for (let job = 1; job <= 60; job += 1) started('charges', `job-${job}`);
    started('charges', 'known');
    started('mails', 'mail');
    const counted = (queue: string, job: string): number | undefined =>
      ledger.counters.get(`job_attempts_started_total{queue=${queue},job=${job},kind=first}`);
    expect(counted('charges', 'job-49')).toBe(1);
    expect(counted('charges', 'job-50')).toBeUndefined();
    expect(counted('charges', 'other')).toBe(11);
    expect(counted('charges', 'known')).toBe(1);
    expect(counted('mails', 'mail')).toBe(1);
  });
});
