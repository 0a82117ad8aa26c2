import type { JobEventSubject, JobEvents } from '../../events/job-events.js';
import { Bulkhead } from '../bulkhead.js';
import { CircuitBreaker, type CircuitState, type Permit } from '../circuit-breaker.js';
import { DEFAULT_WINDOW_MS } from '../circuit-breaker.options.js';
import type { Classify } from '../classify/classify.js';
import { RetryBudget } from '../retry-budget.js';
import type { DependencyRules } from './dependency.options.js';
import type { Rejection } from './rejection.js';
import type { FallbackReason } from '../../operation/reasons.js';
import { KeyedCircuits } from './dependency-key.js';
import { DependencyPermit } from './dependency-permit.js';
import type { KnownFailures } from './dependencies.js';
import { TenantShares } from './tenant-shares.js';

/** What a dependency needs of its application. */
export interface DependencyServices {
  readonly events: JobEvents;
  readonly knownFailures: KnownFailures;
  /** A monotonic clock, in ms. */
  readonly now: () => number;
  /** A source of numbers in [0, 1). */
  readonly random: () => number;
}

/** The job that an event is about; empty when there is none. */
export type EventSubject = Partial<JobEventSubject>;

/** The state of a dependency. */
export interface DependencyState {
  readonly name: string;
  readonly circuit: CircuitState['kind'];
  /** How long until the circuit may let the next call through, in ms; 0 means now. */
  readonly retryAfterMs: number;
  /** Calls that are running in this process. */
  readonly active: number;
  /** Whether a retry was denied in the last ten seconds because the budget was spent. */
  readonly isBudgetSpent: boolean;
  /**
   * For a dependency with a circuit per key: how many keys are known, and how many of their circuits are not closed. The
   * fields above then describe the worst circuit. Undefined when no call has used a key.
   */
  readonly keys?: { readonly known: number; readonly notClosed: number };
}

/**
 * One named dependency in this process. Its circuit stops calls while it fails, its retry budget keeps retries from
 * making it worse, and its bulkhead keeps it from taking all workers. No call ever waits inside.
 *
 * {@link of} returns the dependency for one key: circuit and budget belong to the key, all else to the {@link whole}.
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
  /** The dependency without a key; for one without a key, itself. */
  readonly whole: Dependency;
  #deniedAt = -Infinity;
  /** Calls of this circuit that are running. */
  #underWay = 0;
  /** The job whose failed call is being recorded at this moment. */
  #failing: EventSubject | undefined;
  /** The state that the operator has forced on all keys, also on later ones. */
  #forced: 'open' | 'closed' | undefined;
  #isSharedByTenants = false;

  /** What calls of all dependencies found out about errors. */
  get knownFailures(): KnownFailures {
    return this.services.knownFailures;
  }

  /** @param whole the dependency that this one is a key of. Undefined for one without a key. */
  constructor(
    rules: DependencyRules,
    private readonly services: DependencyServices,
    whole?: Dependency,
  ) {
    const { now, random } = services;
    this.name = rules.name;
    this.timeoutMs = rules.timeoutMs;
    this.clientRetries = rules.clientRetries;
    this.classify = rules.classify;
    this.#isBreaking = rules.breaker !== undefined;
    this.#breaker = new CircuitBreaker({
      ...rules.breaker,
      now,
      random,
      onChange: ({ kind: state }) => this.#changed(state),
    });
    this.#budget = rules.retryBudget && new RetryBudget({ ...rules.retryBudget, now });
    this.#bulkhead = whole === undefined ? new Bulkhead(rules.maxConcurrent ?? Infinity) : whole.#bulkhead;
    this.whole = whole ?? this;
    this.#keyed = new KeyedCircuits(rules.maxKeys, () => {
      const keyed = new Dependency(rules, services, this);
      if (this.#forced !== undefined) keyed.#force(this.#forced);
      return keyed;
    });
    // Tracked only without a key: tenants whose calls use the same key share its circuit on purpose.
    this.#shares =
      whole === undefined ? new TenantShares(rules.breaker?.windowMs ?? DEFAULT_WINDOW_MS, now) : undefined;
  }

  /** The dependency for one key. Undefined stands for all calls without one. */
  of(key: string | undefined): Dependency {
    return key === undefined ? this : this.#keyed.of(key);
  }

  /** The state of the worst of its circuits. */
  get state(): DependencyState {
    const all = this.#all;
    const keyed = all.slice(1);
    const worst = all.reduce((one, other) => (other.#severity > one.#severity ? other : one));
    return {
      name: this.name,
      ...worst.ownCircuit,
      active: this.#bulkhead.active,
      isBudgetSpent: all.some((one) => this.services.now() - one.#deniedAt < DENIAL_SHOWS_MS),
      ...(keyed.length > 0 && {
        keys: { known: keyed.length, notClosed: keyed.filter((one) => one.#severity > 0).length },
      }),
    };
  }

  /** The state of its own circuit, whatever those of its keys are. */
  get ownCircuit(): Pick<DependencyState, 'circuit' | 'retryAfterMs'> {
    return { circuit: this.#breaker.state.kind, retryAfterMs: this.#breaker.retryAfterMs };
  }

  /**
   * Whether its circuit opened on one tenant's failures alone, and rejected calls of others whose calls had succeeded.
   */
  get isSharedByTenants(): boolean {
    return this.#isSharedByTenants;
  }

  get isIdle(): boolean {
    return this.#underWay === 0 && this.#breaker.state.kind === 'closed';
  }

  get #severity(): number {
    return SEVERITIES[this.#breaker.state.kind];
  }

  /**
   * Emits the change. A key may be a tenant's secret, so it is never in the event; for a key's circuit the event names
   * the job whose call opened it.
   */
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
   * Asks for a permit for one call: from the circuit, then from the bulkhead.
   *
   * @param timeoutMs how long the call may take, in ms; a probe that takes longer counts as lost
   */
  enter(timeoutMs: number): DependencyPermit | Rejection {
    const admission = this.#breaker.tryAcquire(timeoutMs + PROBE_SETTLES_MS);
    if (admission.kind === 'open') return this.#rejection('circuit_open', admission.retryAfterMs);
    const { permit } = admission;
    const giveBack = this.#bulkhead.tryAcquire();
    if (giveBack !== undefined) {
      this.#underWay += 1;
      const leave = (): void => {
        this.#underWay -= 1;
        giveBack();
      };
      return new DependencyPermit(this, permit, leave, this.#isBreaking);
    }
    permit.ignore();
    return this.#rejection('bulkhead_full', FULL_MS * (0.5 + this.services.random()));
  }

  /** A call was answered. */
  answered(permit: Permit, { tenantId }: EventSubject): void {
    this.#shares?.note(tenantId, false);
    permit.succeed();
  }

  /** A call failed in a way that shows that the dependency is in trouble. */
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

  /** Counts a first try, or asks for a retry. Returns a rejection when retries were too large a share of all calls. */
  spend(isRetry: boolean, subject: EventSubject): Rejection | undefined {
    if (this.#budget === undefined) return undefined;
    if (!isRetry) this.#budget.deposit();
    if (!isRetry || this.#budget.tryWithdraw()) return undefined;
    return this.denyRetry(subject);
  }

  /** Rejects a retry, since the budget is spent. */
  denyRetry(subject: EventSubject): Rejection {
    this.#deniedAt = this.services.now();
    this.services.events.emit({ kind: 'retry_budget_denied', ...subject, dependency: this.name });
    return this.#rejection('retry_budget_spent', DENIED_MS * (0.5 + this.services.random()));
  }

  timedOut(subject: EventSubject): void {
    this.services.events.emit({ kind: 'dependency_timeout', ...subject, dependency: this.name });
  }

  fellBack(reason: FallbackReason, subject: EventSubject): void {
    this.services.events.emit({ kind: 'fallback_used', ...subject, dependency: this.name, reason });
  }

  /** Opens or closes all circuits, whatever the key, until {@link resetCircuit}. */
  force(state: 'open' | 'closed'): void {
    this.#forced = state;
    for (const one of this.#all) one.#force(state);
  }

  /** Lets each circuit decide by itself again, starting from closed. */
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

  #rejection(cause: Rejection['cause'], retryAfterMs: number): Rejection {
    return { kind: 'rejected', dependency: this.name, cause, retryAfterMs };
  }
}

const SEVERITIES: Readonly<Record<CircuitState['kind'], number>> = {
  closed: 0,
  forced_closed: 0,
  half_open: 1,
  open: 2,
  forced_open: 3,
};

/** The time from the end of a call until its outcome is recorded, with room to spare. */
const PROBE_SETTLES_MS = 5_000;

/** About as long as a call takes. A job that finds the bulkhead full again costs one read of the ledger. */
const FULL_MS = 1_000;

/** Budgets grow with every first try, and by the floor each second: by then about one more retry is allowed. */
const DENIED_MS = 2_000;

/** A budget is asked only before a retry, so one denial shows for as long as first tries count. */
const DENIAL_SHOWS_MS = 10_000;
