import type { JobEvent, JobEventSubject } from '../../events/job-events.js';
import { DEFERRAL_CAUSES, REJECTION_CAUSES } from '../../operation/reasons.js';
import { type CodeLabel, codeLabelOf } from '../../resilience/classify/code-label.js';
import { JOB_METRICS } from './catalogue.js';
import type { Labels, OpenMetrics } from './metrics.port.js';
import { type AllSeries, allSeries, type WordOf } from './series.js';

/** What is known before any event: its series exist from the start. */
export interface KnownNames {
  readonly queues: readonly string[];
  /** The names of jobs, by the queue of their processor. */
  readonly jobs: readonly (readonly [queue: string, names: readonly string[]])[];
  readonly dependencies: readonly string[];
  /** Whether a queue's processor may run jobs of that name, as far as is known here. */
  readonly isListed: (queue: string, jobName: string) => boolean;
}

/** The most job names per queue that get their own series: a queue with more has names made up at run time. */
const MAX_JOBS = 50;
const OTHER_JOBS = 'other';

type Event<K extends JobEvent['kind']> = Extract<JobEvent, { kind: K }>;
/** The events that end an attempt without success. */
type FailureEvent = Event<'retrying' | 'in_doubt' | 'dead'>;

/**
 * Counts events. It runs in the path of jobs: once the series of a job exist, an event costs only map look-ups. The series
 * of a job, queue or dependency begin together, at 0, so that a rate is right from the first event on. Those that depend on
 * an open list (which dependency, why an attempt failed) begin with the first event.
 */
export class MetricsSubscriber {
  readonly #series: AllSeries;
  /** The values of `job`, by queue. */
  readonly #jobs = new Map<string, Set<string>>();
  readonly #queues = new Set<string>();
  readonly #dependencies = new Set<string>();

  constructor(
    metrics: OpenMetrics,
    private readonly known: KnownNames,
  ) {
    this.#series = allSeries(metrics);
    for (const queue of known.queues) this.#queue(queue);
    for (const [queue, jobs] of known.jobs) for (const job of jobs) this.#newJob(queue, job);
    for (const dependency of known.dependencies) {
      this.#dependency(dependency);
      for (const queue of ['', ...known.queues]) this.#series.dependencyTimeouts.at(dependency, queue);
    }
  }

  readonly count = (event: JobEvent): void => {
    // A step is a part of its job, and only the job is counted.
    if ('stepOf' in event && event.stepOf !== undefined && IS_COUNTED_BY_JOB.has(event.kind))
      this.#letterOf(event);
    else (this.#counted[event.kind] as (event: JobEvent) => void)(event);
  };

  /** What is counted of each event. */
  readonly #counted: { readonly [K in JobEvent['kind']]: (event: Event<K>) => void } = {
    enqueued: (event) => {
      if (event.isDuplicate) this.#reused(event, 'duplicate');
    },
    conflict_refused: (event) => this.#reused(event, 'conflict'),
    started: (event) => {
      const { queue, attempt, waitMs } = event;
      const job = this.#job(event);
      this.#series.attemptsStarted.at(queue, job, attempt === 1 ? 'first' : 'retry').increment();
      if (waitMs !== undefined) this.#series.wait.at(queue, job).record(waitMs / 1000);
    },
    completed: (event) => {
      const { queue, attempt, durationMs, endToEndMs, degraded } = event;
      const job = this.#job(event);
      this.#series.processed.at(queue, job, degraded === undefined ? 'completed' : 'degraded').increment();
      this.#series.retryCount.at(queue, job).record(attempt - 1);
      this.#series.duration.at(queue, job).record(durationMs / 1000);
      this.#series.endToEnd.at(queue, job).record(endToEndMs / 1000);
    },
    replayed: (event) => {
      this.#processed(event, 'replayed');
      this.#reused(event, 'replayed');
    },
    retrying: (event) => {
      this.#failed(event);
      const { queue, dependency = '' } = event;
      this.#series.retryAttempts.at(queue, this.#job(event), dependency, labelOf(event)).increment();
    },
    in_doubt: (event) => {
      this.#failed(event);
      this.#letterOf(event);
    },
    dead: (event) => {
      const { queue, attempt, reason, isFollowUp } = event;
      this.#letterOf(event);
      // No delivery has ended with this event.
      if (isFollowUp === true) return this.#reused(event, 'conflict');
      this.#failed(event);
      const job = this.#job(event);
      if (attempt > 0) this.#series.retryCount.at(queue, job).record(attempt - 1);
      if (isExhaustion(reason)) this.#series.retryExhausted.at(queue, job, reason).increment();
      if (reason === 'idempotency_conflict') this.#reused(event, 'conflict');
    },
    refused: (event) => this.#processed(event, event.reason === 'in_doubt' ? 'in_doubt' : 'dead'),
    handed_back: (event) => {
      this.#processed(event, 'deferred');
      const kind = event.times === 1 ? 'first' : 'again';
      this.#series.handedBack.at(event.queue, this.#job(event), kind).increment();
    },
    deferred: (event) => {
      const { queue, cause, dependency = '' } = event;
      this.#processed(event, 'deferred');
      if (cause === 'busy') this.#reused(event, 'busy');
      this.#series.deferred.at(this.#queue(queue), dependency, cause).increment();
    },
    reconciled: (event) => {
      // Without a delay, the consequence of the answer is an event of its own.
      if (event.delayMs !== undefined) this.#processed(event, 'deferred');
    },
    fence_rejected: ({ queue }) => this.#series.fenceRejected.at(this.#queue(queue)).increment(),
    letter_closed: ({ queue, as }) => {
      if (as === 'applied' || as === 'discarded') return;
      const result = as === 'completed' ? 'completed' : 'redriven';
      this.#series.deadLettersRedriven.at(this.#queue(queue), result).increment();
    },
    letter_dropped: ({ queue, reason }) => this.#series.deadLettersDropped.at(queue, reason).increment(),
    circuit_changed: ({ dependency, state }) => {
      if (state === 'open') this.#series.circuitOpened.at(this.#dependency(dependency)).increment();
    },
    dependency_timeout: ({ dependency, queue = '' }) =>
      this.#series.dependencyTimeouts.at(dependency, queue).increment(),
    retry_budget_denied: ({ dependency }) =>
      this.#series.retryBudgetDenied.at(this.#dependency(dependency)).increment(),
    fallback_used: ({ dependency, reason }) =>
      this.#series.fallbacksUsed.at(this.#dependency(dependency), reason).increment(),
    taken_over: () => undefined,
    abandoned: () => undefined,
    late_result_discarded: () => undefined,
  };

  #processed(event: JobEventSubject, result: WordOf<'processed', 'result'>): void {
    this.#series.processed.at(event.queue, this.#job(event), result).increment();
  }

  #reused(event: JobEventSubject, kind: WordOf<'keysReused', 'kind'>): void {
    this.#series.keysReused.at(event.queue, this.#job(event), kind).increment();
  }

  /** Counts new letters. An operation in doubt gets one when no further question is planned. */
  #letterOf(event: JobEvent): void {
    const reason = event.kind === 'dead' ? event.reason : 'in_doubt';
    if (event.kind === 'dead' || (event.kind === 'in_doubt' && event.delayMs === undefined))
      this.#series.deadLetters.at(this.#queue(event.queue), reason).increment();
  }

  /**
   * Counts a delivery that ended without success. It counts as a failed attempt only if the handler ran, or vanished with
   * its worker. When an operation later ends for good, dead or left to the operator, the attempt was counted before.
   */
  #failed(event: FailureEvent): void {
    const { kind, queue, attempt, durationMs, failure } = event;
    const isVanished = kind === 'in_doubt' && event.isVanished === true;
    this.#processed(event, kind);
    if (attempt === 0 || (durationMs === 0 && !isVanished)) return;
    const job = this.#job(event);
    this.#series.failures.at(queue, job, failure, labelOf(event)).increment();
    if (durationMs > 0) this.#series.duration.at(queue, job).record(durationMs / 1000);
  }

  /** The value of `job`. A name that no listed processor runs, or of a job without a tenant, is the producer's free text. */
  #job({ queue, jobName, tenantId }: JobEventSubject): string {
    if (this.#jobs.get(queue)?.has(jobName) === true) return jobName;
    const isKnown = tenantId !== undefined && this.known.isListed(queue, jobName);
    return this.#newJob(queue, isKnown ? jobName : OTHER_JOBS);
  }

  #newJob(queue: string, name: string): string {
    const jobs = this.#jobs.get(queue) ?? new Set();
    this.#jobs.set(queue, jobs);
    const job = jobs.size < MAX_JOBS ? name : OTHER_JOBS;
    if (!jobs.has(job)) this.#begin({ queue, job });
    jobs.add(job);
    return job;
  }

  #queue(queue: string): string {
    if (this.#queues.has(queue)) return queue;
    this.#queues.add(queue);
    this.#begin({ queue });
    const { deferred } = this.#series;
    for (const cause of DEFERRAL_CAUSES) if (cause !== 'rejected') deferred.at(queue, '', cause);
    for (const dependency of this.known.dependencies)
      for (const cause of REJECTION_CAUSES) deferred.at(queue, dependency, cause);
    return queue;
  }

  #dependency(dependency: string): string {
    if (!this.#dependencies.has(dependency)) this.#begin({ dependency });
    this.#dependencies.add(dependency);
    return dependency;
  }

  #begin(labels: Labels): void {
    for (const series of Object.values(this.#series)) series.begin(labels);
  }
}

/** Events that are counted for a job, not for its steps. Letters are counted for steps too. */
const IS_COUNTED_BY_JOB: ReadonlySet<JobEvent['kind']> = new Set([
  'started',
  'completed',
  'replayed',
  'retrying',
  'in_doubt',
  'dead',
  'refused',
  'reconciled',
  'deferred',
] as const);

function labelOf({ failure, failureCode, isThrottled = false }: FailureEvent): CodeLabel {
  return codeLabelOf({ kind: failure, code: failureCode, isThrottled });
}

function isExhaustion(reason: string): reason is WordOf<'retryExhausted', 'reason'> {
  return (JOB_METRICS.retryExhausted.values.reason as readonly string[]).includes(reason);
}
