import { AdmittedCall, type CallResult, type OnEnd } from './admitted-call.js';
import { type CircuitBreakerOptions, resolveBreakerOptions } from './circuit-breaker.options.js';
import type { Admission, CircuitState, Permit } from './circuit-state.js';
import { RollingWindow } from './rolling-window.js';

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

/** Those who are turned away come back over a quarter of the time they were told, not at its end. */
const RETURN_SPREAD = 0.25;

/** A probe is mostly over long before its lease; whoever finds one on its way looks again soon, in milliseconds. */
const MAX_PROBE_WAIT_MS = 5_000;

/**
 * Keeps calls from a dependency that fails most of them, and finds out when it has recovered. One per dependency and
 * process. Never blocks, has no timers: time passes when somebody asks.
 *
 * It opens on a failure, when enough calls are known of the window and their share of failures is too large. A call
 * counts when it ends, and only for the phase it was admitted in: what ends after the circuit has opened says nothing
 * about the recovery. While half open, one probe at a time holds a lease that ends by the clock; a probe that ends
 * later does not count.
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

  /** The milliseconds until the next call could be let through, without any spreading; 0: now. */
  get retryAfterMs(): number {
    const phase = this.#phase;
    switch (phase.kind) {
      case 'closed':
      case 'forced_closed':
        return 0;
      case 'forced_open':
        // Nobody knows; as long as it would be open by itself is a time to look again.
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

  /** @param probeLeaseMs how long the call may keep others out if it becomes a probe; default: that of the options */
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
    // Told only now, so that a listener which asks finds the place taken.
    if (wasOpen) this.#options.onChange(this.state);
    return call;
  }

  /** Turns every call away until {@link reset} or {@link forceClosed}. */
  forceOpen(): void {
    if (this.#phase.kind !== 'forced_open') this.#enter({ kind: 'forced_open' });
  }

  /** Lets every call through, whatever becomes of it, until {@link reset} or {@link forceOpen}. */
  forceClosed(): void {
    if (this.#phase.kind !== 'forced_closed') this.#enter({ kind: 'forced_closed' });
  }

  /** Decides by itself again, from closed: what it knew before it was forced is out of date. */
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
