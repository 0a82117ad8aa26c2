import { type CircuitBreakerOptions, resolveBreakerOptions } from './circuit-breaker.options.js';
import { RollingWindow } from './rolling-window.js';

/**
 * What a circuit breaker does with the next call:
 *
 * - `closed`: lets it through and counts it.
 * - `open`: rejects it; in `retryAfterMs` milliseconds it lets one through as a probe.
 * - `half_open`: lets one probe through at a time; `successes` of them have succeeded in a row.
 * - `forced_open`, `forced_closed`: the operator has decided.
 */
export type CircuitState =
  | { readonly kind: 'closed' }
  | { readonly kind: 'open'; readonly retryAfterMs: number }
  | { readonly kind: 'half_open'; readonly successes: number }
  | { readonly kind: 'forced_open' }
  | { readonly kind: 'forced_closed' };

/** The right to make one call. Only the first call of one of its methods has an effect. */
export interface Permit {
  /** The dependency answered. */
  succeed(): void;
  /** The dependency failed: a transient failure, a timeout, or one that leaves a doubt. */
  fail(): void;
  /** The call says nothing about the dependency: it was never made, was stopped from here, or was itself faulty. */
  ignore(): void;
}

/** The circuit breaker's answer to a call that asks. */
export type Admission =
  | { readonly kind: 'admitted'; readonly permit: Permit }
  /** `retryAfterMs`: when to try again, in milliseconds from now; spread, so that calls do not all come back at once. */
  | { readonly kind: 'open'; readonly retryAfterMs: number };

type Phase =
  | { readonly kind: 'closed'; readonly calls: RollingWindow }
  | { readonly kind: 'open'; readonly untilMs: number }
  | HalfOpen
  | { readonly kind: 'forced_open' }
  | { readonly kind: 'forced_closed' };

interface HalfOpen {
  readonly kind: 'half_open';
  successes: number;
  probe: Permit | undefined;
  leaseEndMs: number;
}

const BUCKETS = 12;

/** Open times are spread by ± 20 %, so that processes which opened together do not probe together. */
const OPEN_SPREAD = 0.2;

/** Rejected calls come back spread over a quarter of the time that they were told, not all at its end. */
const RETURN_SPREAD = 0.25;

/** In ms. A probe mostly ends long before its lease, so a call that finds one running comes back soon. */
const MAX_PROBE_WAIT_MS = 5_000;

/**
 * Stops calls to a dependency while most of them fail, and finds out when it has recovered. There is one per dependency
 * and process. It never blocks and has no timers: it reads the clock when a call asks.
 *
 * It opens on a failure, when the window has enough calls and their share of failures is too large. A call counts when it
 * ends, and only in the phase that admitted it: a call that ends after the circuit has opened says nothing about the
 * recovery. While half open, one probe at a time holds a lease that ends by the clock; a probe that ends later does not
 * count.
 */
export class CircuitBreaker {
  readonly #options: Required<CircuitBreakerOptions>;
  #phase: Phase;
  /** How often it has opened since it was closed. */
  #openings = 0;

  constructor(options: CircuitBreakerOptions = {}) {
    this.#options = resolveBreakerOptions(options);
    this.#phase = this.#closed();
  }

  get state(): CircuitState {
    const phase = this.#phase;
    switch (phase.kind) {
      case 'open':
        return { kind: 'open', retryAfterMs: this.retryAfterMs };
      case 'half_open':
        return { kind: 'half_open', successes: phase.successes };
      default:
        return { kind: phase.kind };
    }
  }

  /** How long until the next call may be let through, in milliseconds, without jitter; 0 means now. */
  get retryAfterMs(): number {
    const phase = this.#phase;
    switch (phase.kind) {
      case 'closed':
      case 'forced_closed':
        return 0;
      case 'forced_open':
        // The end of a forced state is unknown; after the usual open time it is worth asking again.
        return this.#options.openMs;
      case 'open':
        return Math.max(0, phase.untilMs - this.#options.now());
      case 'half_open':
        return phase.probe === undefined
          ? 0
          : Math.min(Math.max(0, phase.leaseEndMs - this.#options.now()), MAX_PROBE_WAIT_MS);
      default:
        return phase satisfies never;
    }
  }

  /** @param probeLeaseMs how long the call keeps others out if it becomes a probe. Default: that of the options */
  tryAcquire(probeLeaseMs: number = this.#options.probeLeaseMs): Admission {
    const waitMs = this.retryAfterMs;
    if (waitMs > 0 || this.#phase.kind === 'forced_open') {
      return { kind: 'open', retryAfterMs: waitMs * (1 + RETURN_SPREAD * this.#options.random()) };
    }
    const wasOpen = this.#phase.kind === 'open';
    if (wasOpen) this.#phase = { kind: 'half_open', successes: 0, probe: undefined, leaseEndMs: 0 };
    const call = new AdmittedCall(this.#phase, this.#onEnd);
    if (this.#phase.kind === 'half_open') {
      this.#phase.probe = call;
      this.#phase.leaseEndMs = this.#options.now() + probeLeaseMs;
    }
    // Emitted only now, so that a listener which makes a call finds the probe's place taken.
    if (wasOpen) this.#options.onChange(this.state);
    return call;
  }

  /** Rejects every call until {@link reset} or {@link forceClosed}. */
  forceOpen(): void {
    if (this.#phase.kind !== 'forced_open') this.#enter({ kind: 'forced_open' });
  }

  /** Lets every call through, however it ends, until {@link reset} or {@link forceOpen}. */
  forceClosed(): void {
    if (this.#phase.kind !== 'forced_closed') this.#enter({ kind: 'forced_closed' });
  }

  /** Decides by itself again, starting from closed: what it knew before it was forced is out of date. */
  reset(): void {
    if (this.#phase.kind === 'forced_open' || this.#phase.kind === 'forced_closed') this.#close();
  }

  readonly #onEnd: OnEnd = (permit, admittedIn, result) => {
    const phase = this.#phase;
    if (admittedIn !== phase) return;
    if (phase.kind === 'closed') this.#count(phase.calls, result);
    if (phase.kind === 'half_open') this.#probed(phase, permit, result);
  };

  #count(calls: RollingWindow, result: CallResult): void {
    if (result === 'nothing') return;
    const nowMs = this.#options.now();
    calls.add(nowMs, 1, result === 'failure' ? 1 : 0);
    if (result === 'success') return;
    const { first: known, second: failed } = calls.totals(nowMs);
    const { minimumCalls, failureShare } = this.#options;
    if (known >= minimumCalls && failed >= failureShare * known) this.#open();
  }

  #probed(phase: HalfOpen, permit: Permit, result: CallResult): void {
    // Its lease has ended, whether or not another probe has taken over.
    if (phase.probe !== permit || this.#options.now() >= phase.leaseEndMs) return;
    phase.probe = undefined;
    if (result === 'failure') return this.#open();
    if (result === 'success') phase.successes += 1;
    if (phase.successes >= this.#options.successes) this.#close();
  }

  #open(): void {
    const { openMs, maxOpenMs, now, random } = this.#options;
    const ms = Math.min(maxOpenMs, openMs * 2 ** Math.min(this.#openings, 52));
    this.#openings += 1;
    const spread = 1 + OPEN_SPREAD * (2 * random() - 1);
    this.#enter({ kind: 'open', untilMs: now() + ms * spread });
  }

  #close(): void {
    this.#openings = 0;
    this.#enter(this.#closed());
  }

  #closed(): Phase {
    return { kind: 'closed', calls: new RollingWindow(BUCKETS, this.#options.windowMs / BUCKETS) };
  }

  #enter(phase: Phase): void {
    this.#phase = phase;
    this.#options.onChange(this.state);
  }
}

/** How an admitted call ended; `nothing` when it says nothing about the dependency. */
type CallResult = 'success' | 'failure' | 'nothing';

/** Called when a call ends, with the phase that admitted it. */
type OnEnd = (permit: Permit, admittedIn: object, result: CallResult) => void;

/**
 * An admission that is its own permit, so that a call through a closed circuit, the most common case, makes one object.
 */
class AdmittedCall implements Permit {
  readonly kind = 'admitted';
  #isOver = false;

  constructor(
    private readonly admittedIn: object,
    private readonly onEnd: OnEnd,
  ) {}

  get permit(): Permit {
    return this;
  }

  succeed(): void {
    this.#end('success');
  }

  fail(): void {
    this.#end('failure');
  }

  ignore(): void {
    this.#end('nothing');
  }

  #end(result: CallResult): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.onEnd(this, this.admittedIn, result);
  }
}
