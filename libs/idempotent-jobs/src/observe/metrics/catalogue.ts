import { DEAD_LETTER_REASONS, FALLBACK_REASONS } from '../../operation/reasons.js';

/*
 * All metrics, with their Prometheus names. No tenant, key, id or message is ever a label: every label is a name from the
 * application's code, or a word of a closed list.
 */

/** The fields of every kind of metric. */
interface Metric<L extends string> {
  readonly name: string;
  readonly help: string;
  readonly labels: readonly L[];
}

/** Counts up from the start of the process. */
export interface CounterMetric<L extends string = string> extends Metric<L> {
  readonly kind: 'counter';
}

/** Counts values by size; `buckets` are the upper bounds, without +Inf. */
export interface HistogramMetric<L extends string = string> extends Metric<L> {
  readonly kind: 'histogram';
  readonly buckets: readonly number[];
}

/**
 * Read at each scrape. Aggregate processes with `max`: most gauges have the same value in every process that shares a
 * ledger, but a circuit is its process's own.
 */
export interface GaugeMetric<L extends string = string> extends Metric<L> {
  readonly kind: 'gauge';
}

/** A metric of the catalogue. */
export type JobMetric = CounterMetric | HistogramMetric | GaugeMetric;

/**
 * A metric that is counted from events. `values` has the words of labels that are closed lists: their series exist from
 * the start.
 */
interface Counted<K, L, V> {
  readonly kind: K;
  readonly name: string;
  readonly help: string;
  readonly labels: L;
  readonly values: V;
}

function counter<const L extends readonly string[], const V extends Record<string, readonly string[]> = {}>(
  name: string,
  help: string,
  labels: L,
  values = {} as V,
): Counted<'counter', L, V> {
  return { kind: 'counter', name, help, labels, values };
}

function histogram(name: string, help: string, buckets: readonly number[]) {
  return { kind: 'histogram', name, help, labels: ['queue', 'job'], values: {}, buckets } as const;
}

function gauge<L extends string = never>(name: string, help: string, ...labels: L[]): GaugeMetric<L> {
  return { kind: 'gauge', name, help, labels };
}

/** From a handler that reads one row to one that runs for minutes; 30 s is the default timeout. */
const RUN_SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300];
/** From a worker that is idle to a backlog of hours. */
const WAIT_SECONDS = [0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600, 14_400];

/** The catalogue of metrics. */
export const JOB_METRICS = {
  attemptsStarted: counter(
    'job_attempts_started_total',
    'Attempts that were started, by whether they are the first of their operation.',
    ['queue', 'job', 'kind'],
    { kind: ['first', 'retry'] },
  ),
  retryAttempts: counter('retry_attempts_total', 'Failed attempts that another one follows.', [
    'queue',
    'job',
    'dependency',
    'reason',
  ]),
  retryExhausted: counter(
    'retry_exhausted_total',
    'Operations given up because no further attempt was allowed.',
    ['queue', 'job', 'reason'],
    { reason: ['retries_exhausted', 'time_budget_exceeded', 'deferred_too_long', 'crash_loop'] },
  ),
  dependencyTimeouts: counter(
    'dependency_timeout_total',
    'Calls of a dependency, and attempts that depend on it, that took too long.',
    ['dependency', 'queue'],
  ),
  circuitOpened: counter('circuit_breaker_open_total', 'How often a circuit opened after failures.', [
    'dependency',
  ]),
  fallbacksUsed: counter(
    'fallback_used_total',
    'How often a fallback answered in place of its dependency.',
    ['dependency', 'reason'],
    { reason: FALLBACK_REASONS },
  ),
  keysReused: counter(
    'idempotency_key_reused_total',
    'Requests and deliveries whose key the ledger knew already.',
    ['queue', 'job', 'kind'],
    { kind: ['replayed', 'duplicate', 'conflict', 'busy'] },
  ),
  deadLetters: counter('dead_letter_messages_total', 'Dead letters written.', ['queue', 'reason'], {
    reason: DEAD_LETTER_REASONS,
  }),
  deadLettersDropped: counter(
    'dead_letter_messages_dropped_total',
    'Messages on a dead-letter queue that name no letter of the ledger.',
    ['queue', 'reason'],
  ),
  deadLettersRedriven: counter(
    'dead_letter_redriven_total',
    'Dead letters brought back: run again, or found to have completed already.',
    ['queue', 'result'],
    { result: ['redriven', 'completed'] },
  ),
  processed: counter(
    'jobs_processed_total',
    'Deliveries that have ended, by how they ended.',
    ['queue', 'job', 'result'],
    { result: ['completed', 'degraded', 'replayed', 'retrying', 'in_doubt', 'dead', 'deferred'] },
  ),
  failures: counter(
    'job_failures_total',
    'Attempts that failed, by what the failure says about the effect.',
    ['queue', 'job', 'kind', 'reason'],
  ),
  deferred: counter('jobs_deferred_total', 'Deliveries deferred without spending an attempt.', [
    'queue',
    'dependency',
    'reason',
  ]),
  handedBack: counter(
    'jobs_handed_back_total',
    'Deliveries that their handler handed back to BullMQ: the first of an operation, or again without an attempt that ended in between.',
    ['queue', 'job', 'kind'],
    { kind: ['first', 'again'] },
  ),
  retryBudgetDenied: counter(
    'retry_budget_denied_total',
    'Retries held back because too large a share of all calls were retries.',
    ['dependency'],
  ),
  fenceRejected: counter(
    'fence_rejected_total',
    'Outcomes not recorded because the lease had gone to another worker.',
    ['queue'],
  ),
  retryCount: histogram(
    'job_retry_count',
    'Attempts before the last one, of operations that completed or died.',
    [0, 1, 2, 3, 5, 8, 13],
  ),
  duration: histogram('job_duration_seconds', 'How long attempts ran.', RUN_SECONDS),
  wait: histogram(
    'job_wait_seconds',
    'How long operations waited for their first attempt since they could have been run.',
    WAIT_SECONDS,
  ),
  endToEnd: histogram(
    'job_end_to_end_seconds',
    'How long operations took to complete since they could have been run.',
    WAIT_SECONDS,
  ),
  queueDepth: gauge('queue_depth', 'Jobs that BullMQ holds.', 'queue', 'state'),
  queueOldestAge: gauge(
    'queue_oldest_message_age_seconds',
    'How long the job that waits longest has been waiting; 0: none waits.',
    'queue',
  ),
  openLetters: gauge('dead_letter_open', 'Dead letters that nobody has closed yet.', 'queue', 'reason'),
  oldestLetterAge: gauge(
    'dead_letter_oldest_age_seconds',
    'How long the oldest open dead letter has been open; 0: none is.',
    'queue',
  ),
  dispatchPending: gauge('dispatch_pending', 'Operations and dead letters that have never been on a queue.'),
  dispatchOldestAge: gauge(
    'dispatch_oldest_age_seconds',
    'How old the oldest operation or dead letter is that has never been on a queue; 0: there is none.',
  ),
  inDoubt: gauge('jobs_in_doubt', 'Operations of which nobody knows whether they had their effect.', 'queue'),
  oldestDoubtAge: gauge(
    'jobs_in_doubt_oldest_age_seconds',
    'How long the operation that is in doubt for longest has been; 0: none is.',
    'queue',
  ),
  circuitState: gauge('circuit_breaker_state', '0: closed, 1: half open, 2: open.', 'dependency'),
} as const;
