import type { JobEventSubject, JobEvents } from '../observe/job-events.js';
import { Bulkhead } from '../resilience/bulkhead.js';
import { CircuitBreaker } from '../resilience/circuit-breaker.js';
import type { CircuitState } from '../resilience/circuit-state.js';
import type { Classify } from '../resilience/classify.js';
import { RetryBudget } from '../resilience/retry-budget.js';
import type { DependencySettings } from './dependency.options.js';
import type { FallbackReason, Hold } from './hold.js';
import { Pass } from './pass.js';
import type { Readings } from './readings.js';

/** What a dependency is made with. */
export interface DependencyServices {
  readonly events: JobEvents;
  readonly readings: Readings;
  /** A monotonic clock, in ms. */
  readonly now: () => number;
  /** A source of numbers in [0, 1). */
  readonly random: () => number;
}

/** Whom an event is about: a job, or nobody. */
export type EventSubject = Partial<JobEventSubject>;

/** What is known of a dependency. */
export interface DependencyState {
  readonly name: string;
  readonly circuit: CircuitState['kind'];
  /** Until the next call could be let through by the circuit, in ms; 0: now. */
  readonly retryAfterMs: number;
  /** Calls that run in this process. */
  readonly active: number;
  /** Whether the last retry that asked was denied for want of budget, in the last ten seconds. */
  readonly isBudgetSpent: boolean;
}

/**
 * One named dependency in this process: the circuit that keeps calls from it while it fails, the budget that keeps
 * retries from making it worse, the bulkhead that keeps it from taking all workers. Nobody waits inside.
 */
export class Dependency {
  readonly name: string;
  readonly timeoutMs: number | undefined;
  readonly clientRetries: number | undefined;
  readonly classify: Classify | undefined;
  readonly #breaker: CircuitBreaker;
  readonly #isBreaking: boolean;
  readonly #budget: RetryBudget | undefined;
  readonly #bulkhead: Bulkhead;
  #deniedAt = -Infinity;

  /** What calls of all dependencies found out about errors. */
  get readings(): Readings {
    return this.services.readings;
  }

  constructor(
    settings: DependencySettings,
    private readonly services: DependencyServices,
  ) {
    const { now, random, events } = services;
    this.name = settings.name;
    this.timeoutMs = settings.timeoutMs;
    this.clientRetries = settings.clientRetries;
    this.classify = settings.classify;
    this.#isBreaking = settings.breaker !== undefined;
    this.#breaker = new CircuitBreaker({
      ...settings.breaker,
      now,
      random,
      onChange: ({ kind: state }) => events.emit({ kind: 'circuit_changed', dependency: this.name, state }),
    });
    this.#budget = settings.retryBudget && new RetryBudget({ ...settings.retryBudget, now });
    this.#bulkhead = new Bulkhead(settings.maxConcurrent ?? Infinity);
  }

  get state(): DependencyState {
    return {
      name: this.name,
      circuit: this.#breaker.state.kind,
      retryAfterMs: this.#breaker.retryAfterMs,
      active: this.#bulkhead.active,
      isBudgetSpent: this.services.now() - this.#deniedAt < DENIAL_SHOWS_MS,
    };
  }

  /**
   * Asks for one call to be let through: by the circuit, then by the bulkhead.
   *
   * @param timeoutMs how long the call may take, in ms; a probe that is not heard of for longer is lost
   */
  enter(timeoutMs: number): Pass | Hold {
    const admission = this.#breaker.tryAcquire(timeoutMs + PROBE_SETTLES_MS);
    if (admission.kind === 'open') return this.#hold('circuit_open', admission.retryAfterMs);
    const { permit } = admission;
    const leave = this.#bulkhead.tryAcquire();
    if (leave !== undefined) return new Pass(this, permit, leave, this.#isBreaking);
    permit.ignore();
    return this.#hold('bulkhead_full', FULL_MS * (0.5 + this.services.random()));
  }

  /** Whether a retry would be let through now. */
  get hasRetries(): boolean {
    return this.#budget?.hasRoom ?? true;
  }

  /** Counts a first try, or asks for a retry: a hold, if retries were too large a share of all calls. */
  spend(isRetry: boolean, subject: EventSubject): Hold | undefined {
    if (this.#budget === undefined) return undefined;
    if (!isRetry) this.#budget.deposit();
    if (!isRetry || this.#budget.tryWithdraw()) return undefined;
    return this.denyRetry(subject);
  }

  /** There is no retry to be had. */
  denyRetry(subject: EventSubject): Hold {
    this.#deniedAt = this.services.now();
    this.services.events.emit({ kind: 'retry_budget_denied', ...subject, dependency: this.name });
    return this.#hold('retry_budget_spent', DENIED_MS * (0.5 + this.services.random()));
  }

  timedOut(subject: EventSubject): void {
    this.services.events.emit({ kind: 'dependency_timeout', ...subject, dependency: this.name });
  }

  fellBack(reason: FallbackReason, subject: EventSubject): void {
    this.services.events.emit({ kind: 'fallback_used', ...subject, dependency: this.name, reason });
  }

  /** Lets nothing through until {@link unforce}, or everything. */
  force(state: 'open' | 'closed'): void {
    if (state === 'open') this.#breaker.forceOpen();
    else this.#breaker.forceClosed();
  }

  /** Back to what the circuit finds out by itself, from closed. */
  unforce(): void {
    this.#breaker.unforce();
  }

  #hold(cause: Hold['cause'], retryAfterMs: number): Hold {
    return { kind: 'held', dependency: this.name, cause, retryAfterMs };
  }
}

/** From the end of a call to its record, and then some. */
const PROBE_SETTLES_MS = 5_000;

/** About as long as a call takes; whoever finds the bulkhead full again costs one look at the ledger. */
const FULL_MS = 1_000;

/** Budgets grow with every first try, and by the floor each second: about when one more retry is to be had. */
const DENIED_MS = 2_000;

/** A budget is asked only when somebody wants to retry; as long as one denial shows, so long do first tries count. */
const DENIAL_SHOWS_MS = 10_000;
