import {
  DEAD_LETTER_REASONS,
  FALLBACK_REASONS,
  REJECTION_CAUSES,
  type RejectionCause,
} from '../../operation/reasons.js';
import type { DeferralReason } from '../../events/job-events.js';
import { JOB_METRICS as METRICS } from './catalogue.js';
import type { CounterSeries, OpenMetrics } from './metrics.port.js';

/*
 * The series of one job, queue or dependency, which the subscribers keep. They are made together, at 0, so that a rate is
 * right from the first event on. Series that depend on an open list (which dependency, why an attempt failed) are made at
 * the first event.
 */

/** Why an operation is given up although one more attempt might have succeeded. */
export const EXHAUSTION_REASONS = [
  'retries_exhausted',
  'time_budget_exceeded',
  'deferred_too_long',
  'crash_loop',
] as const;

const RESULTS = ['completed', 'degraded', 'replayed', 'retrying', 'in_doubt', 'dead', 'deferred'] as const;
const REUSES = ['replayed', 'duplicate', 'conflict', 'busy'] as const;
/** The causes of a deferral other than a dependency's rejection. */
type OwnCause = Exclude<DeferralReason, RejectionCause>;
const DEFERRAL_CAUSES = Object.keys({
  busy: true,
  fenced: true,
  not_yet: true,
  waiting: true,
  unavailable: true,
  stopped: true,
} satisfies Record<OwnCause, true>) as OwnCause[];

/** What is counted per job. */
export interface JobSeries extends ReturnType<typeof jobSeries> {}

export function jobSeries(metrics: OpenMetrics, queue: string, job: string) {
  const labels = { queue, job };
  return {
    started: each(['first', 'retry'], (kind) =>
      metrics.counter(METRICS.attemptsStarted, { ...labels, kind }),
    ),
    processed: each(RESULTS, (result) => metrics.counter(METRICS.processed, { ...labels, result })),
    reused: each(REUSES, (kind) => metrics.counter(METRICS.keysReused, { ...labels, kind })),
    exhausted: each(EXHAUSTION_REASONS, (reason) =>
      metrics.counter(METRICS.retryExhausted, { ...labels, reason }),
    ),
    handedBack: each(['first', 'again'], (kind) => metrics.counter(METRICS.handedBack, { ...labels, kind })),
    /** By dependency and reason. */
    retries: new Grid<CounterSeries>((dependency, reason) =>
      metrics.counter(METRICS.retryAttempts, { ...labels, dependency, reason }),
    ),
    /** By kind and reason. */
    failures: new Grid<CounterSeries>((kind, reason) =>
      metrics.counter(METRICS.failures, { ...labels, kind, reason }),
    ),
    retryCount: metrics.histogram(METRICS.retryCount, labels),
    duration: metrics.histogram(METRICS.duration, labels),
    wait: metrics.histogram(METRICS.wait, labels),
    endToEnd: metrics.histogram(METRICS.endToEnd, labels),
  };
}

/** What is counted per queue. */
export interface QueueSeries extends ReturnType<typeof queueSeries> {}

export function queueSeries(metrics: OpenMetrics, queue: string, dependencies: readonly string[]) {
  /** By dependency and reason. */
  const deferred = new Grid<CounterSeries>((dependency, reason) =>
    metrics.counter(METRICS.deferred, { queue, dependency, reason }),
  );
  for (const cause of DEFERRAL_CAUSES) deferred.at('', cause);
  for (const dependency of dependencies) for (const cause of REJECTION_CAUSES) deferred.at(dependency, cause);
  return {
    deferred,
    letters: each(DEAD_LETTER_REASONS, (reason) => metrics.counter(METRICS.deadLetters, { queue, reason })),
    redriven: each(['redriven', 'completed'], (result) =>
      metrics.counter(METRICS.deadLettersRedriven, { queue, result }),
    ),
    fenced: metrics.counter(METRICS.fenceRejected, { queue }),
  };
}

/** What is counted per dependency. */
export interface DependencySeries extends ReturnType<typeof dependencySeries> {}

export function dependencySeries(metrics: OpenMetrics, dependency: string) {
  return {
    opened: metrics.counter(METRICS.circuitOpened, { dependency }),
    fallbacks: each(FALLBACK_REASONS, (reason) =>
      metrics.counter(METRICS.fallbacksUsed, { dependency, reason }),
    ),
    budgetDenied: metrics.counter(METRICS.retryBudgetDenied, { dependency }),
  };
}

function each<K extends string, V>(names: readonly K[], make: (name: K) => V): Readonly<Record<K, V>> {
  return Object.fromEntries(names.map((name) => [name, make(name)])) as Record<K, V>;
}

/** Values by two names, each made at its first use. A look-up allocates nothing. */
export class Grid<V> {
  readonly #rows = new Map<string, Map<string, V>>();

  constructor(private readonly make: (row: string, column: string) => V) {}

  find(row: string, column: string): V | undefined {
    return this.#rows.get(row)?.get(column);
  }

  at(row: string, column: string): V {
    let values = this.#rows.get(row);
    if (values === undefined) {
      values = new Map();
      this.#rows.set(row, values);
    }
    let value = values.get(column);
    if (value === undefined) {
      value = this.make(row, column);
      values.set(column, value);
    }
    return value;
  }

  /** How many columns the row has. */
  width(row: string): number {
    return this.#rows.get(row)?.size ?? 0;
  }
}
