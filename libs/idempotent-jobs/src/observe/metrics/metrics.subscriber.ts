import type { JobEvent, JobEventSubject } from '../../events/job-events.js';
import { type CodeLabel, codeLabelOf } from '../../resilience/classify/code-label.js';
import { JOB_METRICS as METRICS } from './catalogue.js';
import type { CounterSeries, OpenMetrics } from './metrics.port.js';
import {
  type DependencySeries,
  dependencySeries,
  EXHAUSTION_REASONS,
  Grid,
  type JobSeries,
  jobSeries,
  type QueueSeries,
  queueSeries,
} from './series.js';

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

/** Counts events. It runs in the path of jobs: once the series of a job exist, an event costs only map look-ups. */
export class MetricsSubscriber {
  readonly #jobs: Grid<JobSeries>;
  readonly #queues = new Map<string, QueueSeries>();
  readonly #dependencies = new Map<string, DependencySeries>();
  /** By dependency and queue. */
  readonly #timeouts: Grid<CounterSeries>;
  /** By dead-letter queue and reason. */
  readonly #dropped: Grid<CounterSeries>;

  constructor(
    private readonly metrics: OpenMetrics,
    private readonly known: KnownNames,
  ) {
    this.#jobs = new Grid((queue, job) => jobSeries(metrics, queue, job));
    this.#timeouts = new Grid((dependency, queue) =>
      metrics.counter(METRICS.dependencyTimeouts, { dependency, queue }),
    );
    this.#dropped = new Grid((queue, reason) =>
      metrics.counter(METRICS.deadLettersDropped, { queue, reason }),
    );
    for (const queue of known.queues) this.#queue(queue);
    for (const [queue, jobs] of known.jobs) for (const job of jobs) this.#newJob(queue, job);
    for (const dependency of known.dependencies) {
      this.#dependency(dependency);
      for (const queue of ['', ...known.queues]) this.#timeouts.at(dependency, queue);
    }
  }

  readonly count = (event: JobEvent): void => {
    // A step is a part of its job, and only the job is counted.
    if ('stepOf' in event && event.stepOf !== undefined && IS_COUNTED_BY_JOB.has(event.kind))
      return this.#letterOf(event);
    switch (event.kind) {
      case 'enqueued':
        if (event.isDuplicate) this.#job(event).reused.duplicate.increment();
        return;
      case 'conflict_refused':
        return this.#job(event).reused.conflict.increment();
      case 'started':
        return this.#started(event);
      case 'completed':
        return this.#completed(event);
      case 'replayed': {
        const job = this.#job(event);
        job.processed.replayed.increment();
        return job.reused.replayed.increment();
      }
      case 'retrying':
        return this.#failed(event, event.failureCode)
          .retries.at(event.dependency ?? '', labelOf(event, event.failureCode))
          .increment();
      case 'in_doubt':
        this.#failed(event, event.failureCode);
        return this.#letterOf(event);
      case 'dead':
        return this.#dead(event);
      case 'deferred':
        return this.#deferred(event);
      case 'fence_rejected':
        return this.#queue(event.queue).fenced.increment();
      case 'letter_closed':
        return this.#closed(event);
      case 'letter_dropped':
        return this.#dropped.at(event.queue, event.reason).increment();
      case 'circuit_changed':
        if (event.state === 'open') this.#dependency(event.dependency).opened.increment();
        return;
      case 'dependency_timeout':
        return this.#timeouts.at(event.dependency, event.queue ?? '').increment();
      case 'retry_budget_denied':
        return this.#dependency(event.dependency).budgetDenied.increment();
      case 'fallback_used':
        return this.#dependency(event.dependency).fallbacks[event.reason].increment();
      case 'refused':
        return this.#job(event).processed[event.reason === 'in_doubt' ? 'in_doubt' : 'dead'].increment();
      case 'handed_back':
        return this.#handedBack(event);
      case 'reconciled':
        // Without a delay, the consequence of the answer is an event of its own.
        if (event.delayMs !== undefined) this.#job(event).processed.deferred.increment();
        return;
      case 'taken_over':
      case 'abandoned':
      case 'late_result_discarded':
        return;
      default:
        return event satisfies never;
    }
  };

  #started(event: Event<'started'>): void {
    const { attempt, waitMs } = event;
    const job = this.#job(event);
    job.started[attempt === 1 ? 'first' : 'retry'].increment();
    if (waitMs !== undefined) job.wait.record(waitMs / 1000);
  }

  #completed(event: Event<'completed'>): void {
    const { attempt, durationMs, endToEndMs, degraded } = event;
    const job = this.#job(event);
    job.processed[degraded === undefined ? 'completed' : 'degraded'].increment();
    job.retryCount.record(attempt - 1);
    job.duration.record(durationMs / 1000);
    job.endToEnd.record(endToEndMs / 1000);
  }

  #dead(event: Event<'dead'>): void {
    const { attempt, reason, failureCode, isFollowUp } = event;
    this.#letterOf(event);
    // No delivery has ended with this event.
    if (isFollowUp === true) return this.#job(event).reused.conflict.increment();
    const job = this.#failed(event, failureCode);
    if (attempt > 0) job.retryCount.record(attempt - 1);
    if (isExhaustion(reason)) job.exhausted[reason].increment();
    if (reason === 'idempotency_conflict') job.reused.conflict.increment();
  }

  /** Counts new letters. An operation in doubt gets one when no further lookup is planned. */
  #letterOf(event: JobEvent): void {
    if (event.kind === 'dead') this.#queue(event.queue).letters[event.reason].increment();
    else if (event.kind === 'in_doubt' && event.delayMs === undefined)
      this.#queue(event.queue).letters.in_doubt.increment();
  }

  /**
   * Counts a delivery that ended without success. It counts as a failed attempt only if the handler ran, or vanished with
   * its worker. When an operation later ends for good, dead or left to the operator, the attempt was counted before.
   */
  #failed(event: FailureEvent, reason: string): JobSeries {
    const { kind, attempt, durationMs, failure } = event;
    const isVanished = kind === 'in_doubt' && event.isVanished === true;
    const job = this.#job(event);
    job.processed[kind].increment();
    if (attempt === 0 || (durationMs === 0 && !isVanished)) return job;
    job.failures.at(failure, labelOf(event, reason)).increment();
    if (durationMs > 0) job.duration.record(durationMs / 1000);
    return job;
  }

  #handedBack(event: Event<'handed_back'>): void {
    const job = this.#job(event);
    job.processed.deferred.increment();
    job.handedBack[event.times === 1 ? 'first' : 'again'].increment();
  }

  #deferred(event: Event<'deferred'>): void {
    const { queue, cause, dependency } = event;
    const job = this.#job(event);
    job.processed.deferred.increment();
    if (cause === 'busy') job.reused.busy.increment();
    this.#queue(queue)
      .deferred.at(dependency ?? '', cause)
      .increment();
  }

  #closed({ queue, as }: Event<'letter_closed'>): void {
    if (as === 'redriven' || as === 'not_applied') this.#queue(queue).redriven.redriven.increment();
    else if (as === 'completed') this.#queue(queue).redriven.completed.increment();
  }

  #job({ queue, jobName, tenantId }: JobEventSubject): JobSeries {
    // A name that no listed processor runs, or of a job without a tenant, is the producer's free text.
    const isKnown = tenantId !== undefined && this.known.isListed(queue, jobName);
    return this.#jobs.find(queue, jobName) ?? this.#newJob(queue, isKnown ? jobName : OTHER_JOBS);
  }

  #newJob(queue: string, name: string): JobSeries {
    return this.#jobs.at(queue, this.#jobs.width(queue) < MAX_JOBS ? name : OTHER_JOBS);
  }

  #queue(name: string): QueueSeries {
    let series = this.#queues.get(name);
    if (series === undefined) {
      series = queueSeries(this.metrics, name, this.known.dependencies);
      this.#queues.set(name, series);
    }
    return series;
  }

  #dependency(name: string): DependencySeries {
    let series = this.#dependencies.get(name);
    if (series === undefined) {
      series = dependencySeries(this.metrics, name);
      this.#dependencies.set(name, series);
    }
    return series;
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

function labelOf({ failure, isThrottled }: FailureEvent, reason: string): CodeLabel {
  return codeLabelOf({ kind: failure, code: reason, ...(isThrottled !== undefined && { isThrottled }) });
}

function isExhaustion(reason: string): reason is (typeof EXHAUSTION_REASONS)[number] {
  return (EXHAUSTION_REASONS as readonly string[]).includes(reason);
}
