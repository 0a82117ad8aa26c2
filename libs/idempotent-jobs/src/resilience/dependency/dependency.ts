import type { JobEventSubject, JobEvents } from '../../events/job-events.js';
import { Bulkhead } from '../bulkhead.js';
import { CircuitBreaker } from '../circuit-breaker.js';
import { DEFAULT_WINDOW_MS } from '../circuit-breaker.options.js';
import type { CircuitState, Permit } from '../circuit-state.js';
import type { Classify } from '../classify/classify.js';
import { RetryBudget } from '../retry-budget.js';
import type { DependencyRules } from './dependency.options.js';
import type { Rejection } from './rejection.js';
import type { FallbackReason } from '../../operation/reasons.js';
import { KeyedCircuits } from './keyed-circuits.js';
import { DependencyPermit } from './dependency-permit.js';
import type { KnownFailures } from './known-failures.js';
import { TenantShares } from './tenant-shares.js';

/** What a dependency is made with. */
export interface DependencyServices {
  readonly events: JobEvents;
  readonly knownFailures: KnownFailures;
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
  /**
   * Of a dependency with a circuit for each key: how many are known, and how many of these are not closed. What stands
   * above is then that of the worst of them. Undefined: it was never asked for by key.
   */
  readonly keys?: { readonly known: number; readonly notClosed: number };
}

/**
 * One named dependency in this process: the circuit that keeps calls from it while it fails, the budget that keeps
 * retries from making it worse, the bulkhead that keeps it from taking all workers. Nobody waits inside.
 *
 * {@link of} gives that of one key: circuit and budget are the key's own, all else is that of the {@link whole}.
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
  readonly #keyed: KeyedCircuits<Dependency>;
  readonly #shares: TenantShares | undefined;
  /** The dependency without a key: itself, unless it is that of a key. */
  readonly whole: Dependency;
  #deniedAt = -Infinity;
  /** Calls of this circuit that are under way. */
  #underWay = 0;
  /** Whose call fails at this moment. */
  #failing: EventSubject | undefined;
  /** The state that a person has decided for all keys, also for those to come. */
  #forced: 'open' | 'closed' | undefined;
  #isSharedByTenants = false;

  /** What calls of all dependencies found out about errors. */
  get knownFailures(): KnownFailures {
    return this.services.knownFailures;
  }

  /** `whole`: what it is a key of; undefined: of nothing. */
  constructor(
    settings: DependencyRules,
    private readonly services: DependencyServices,
    whole?: Dependency,
  ) {
    const { now, random } = services;
    this.name = settings.name;
    this.timeoutMs = settings.timeoutMs;
    this.clientRetries = settings.clientRetries;
    this.classify = settings.classify;
    this.#isBreaking = settings.breaker !== undefined;
    this.#breaker = new CircuitBreaker({
      ...settings.breaker,
      now,
      random,
      onChange: ({ kind: state }) => this.#changed(state),
    });
    this.#budget = settings.retryBudget && new RetryBudget({ ...settings.retryBudget, now });
    this.#bulkhead = whole === undefined ? new Bulkhead(settings.maxConcurrent ?? Infinity) : whole.#bulkhead;
    this.whole = whole ?? this;
    this.#keyed = new KeyedCircuits(settings.maxKeys, () => this.#keyMade(settings));
    // Calls that have a key share it on purpose.
    this.#shares =
      whole === undefined
        ? new TenantShares(settings.breaker?.windowMs ?? DEFAULT_WINDOW_MS, now)
        : undefined;
  }

  /** That of one key; undefined: that of all calls without one. */
  of(key: string | undefined): Dependency {
    return key === undefined ? this : this.#keyed.of(key);
  }

  #keyMade(settings: DependencyRules): Dependency {
    const made = new Dependency(settings, this.services, this);
    if (this.#forced !== undefined) made.#force(this.#forced);
    return made;
  }

  /** Of the worst of its circuits. */
  get state(): DependencyState {
    const all = this.#all;
    const keyed = all.slice(1);
    const worst = all.reduce((one, other) => (other.#severity > one.#severity ? other : one));
    return {
      name: this.name,
      ...worst.ownCircuit,
      active: this.#bulkhead.active,
      isBudgetSpent: all.some((one) => one.#isBudgetSpent),
      ...(keyed.length > 0 && {
        keys: { known: keyed.length, notClosed: keyed.filter((one) => one.#severity > 0).length },
      }),
    };
  }

  /** Of its own circuit alone, whatever those of its keys are. */
  get ownCircuit(): Pick<DependencyState, 'circuit' | 'retryAfterMs'> {
    return { circuit: this.#breaker.state.kind, retryAfterMs: this.#breaker.retryAfterMs };
  }

  /** Whether its circuit opened on one tenant's failures alone, and held back others whose calls were answered. */
  get isSharedByTenants(): boolean {
    return this.#isSharedByTenants;
  }

  get isIdle(): boolean {
    return this.#underWay === 0 && this.#breaker.state.kind === 'closed';
  }

  get #isBudgetSpent(): boolean {
    return this.services.now() - this.#deniedAt < DENIAL_SHOWS_MS;
  }

  get #severity(): number {
    return SEVERITIES[this.#breaker.state.kind];
  }

  /** A key may be a tenant's own, and is told to nobody; of a key's circuit it is told whose call has opened it. */
  #changed(state: CircuitState['kind']): void {
    const subject = this.whole === this ? undefined : this.#failing;
    const isOneTenantsFault = state === 'open' && this.#shares?.isOneTenantsFault === true;
    if (isOneTenantsFault) this.#isSharedByTenants = true;
    if (state === 'closed') this.#shares?.forget();
    this.services.events.emit({
      kind: 'circuit_changed',
      ...subject,
      dependency: this.name,
      state,
      ...(isOneTenantsFault && { isOneTenantsFault }),
    });
  }

  /**
   * Asks for one call to be let through: by the circuit, then by the bulkhead.
   *
   * @param timeoutMs how long the call may take, in ms; a probe that is not heard of for longer is lost
   */
  enter(timeoutMs: number): DependencyPermit | Rejection {
    const admission = this.#breaker.tryAcquire(timeoutMs + PROBE_SETTLES_MS);
    if (admission.kind === 'open') return this.#hold('circuit_open', admission.retryAfterMs);
    const { permit } = admission;
    const giveBack = this.#bulkhead.tryAcquire();
    if (giveBack !== undefined) {
      this.#underWay += 1;
      return new DependencyPermit(this, permit, () => this.#left(giveBack), this.#isBreaking);
    }
    permit.ignore();
    return this.#hold('bulkhead_full', FULL_MS * (0.5 + this.services.random()));
  }

  #left(giveBack: () => void): void {
    this.#underWay -= 1;
    giveBack();
  }

  /** A call was answered. */
  answered(permit: Permit, { tenantId }: EventSubject): void {
    this.#shares?.note(tenantId, false);
    permit.succeed();
  }

  /** A call failed in a way that says that the dependency is in trouble. */
  failed(permit: Permit, subject: EventSubject): void {
    this.#shares?.note(subject.tenantId, true);
    this.#failing = subject;
    permit.fail();
    this.#failing = undefined;
  }

  /** Whether a retry would be let through now. */
  get hasRetries(): boolean {
    return this.#budget?.hasRoom ?? true;
  }

  /** Counts a first try, or asks for a retry: a hold, if retries were too large a share of all calls. */
  spend(isRetry: boolean, subject: EventSubject): Rejection | undefined {
    if (this.#budget === undefined) return undefined;
    if (!isRetry) this.#budget.deposit();
    if (!isRetry || this.#budget.tryWithdraw()) return undefined;
    return this.denyRetry(subject);
  }

  /** There is no retry to be had. */
  denyRetry(subject: EventSubject): Rejection {
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

  /** Lets nothing through until {@link resetCircuit}, or everything, whatever the key. */
  force(state: 'open' | 'closed'): void {
    this.#forced = state;
    for (const one of this.#all) one.#force(state);
  }

  /** Back to what each circuit finds out by itself, from closed. */
  resetCircuit(): void {
    this.#forced = undefined;
    for (const one of this.#all) one.#breaker.reset();
  }

  get #all(): Dependency[] {
    return [this, ...this.#keyed.all];
  }

  #force(state: 'open' | 'closed'): void {
    if (state === 'open') this.#breaker.forceOpen();
    else this.#breaker.forceClosed();
  }

  #hold(cause: Rejection['cause'], retryAfterMs: number): Rejection {
    return { kind: 'held', dependency: this.name, cause, retryAfterMs };
  }
}

const SEVERITIES: Readonly<Record<CircuitState['kind'], number>> = {
  closed: 0,
  forced_closed: 0,
  half_open: 1,
  open: 2,
  forced_open: 3,
};

/** From the end of a call to its record, and then some. */
const PROBE_SETTLES_MS = 5_000;

/** About as long as a call takes; whoever finds the bulkhead full again costs one look at the ledger. */
const FULL_MS = 1_000;

/** Budgets grow with every first try, and by the floor each second: about when one more retry is to be had. */
const DENIED_MS = 2_000;

/** A budget is asked only when somebody wants to retry; as long as one denial shows, so long do first tries count. */
const DENIAL_SHOWS_MS = 10_000;
