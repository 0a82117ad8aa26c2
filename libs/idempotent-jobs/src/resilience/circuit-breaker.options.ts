import type { CircuitState } from './circuit-breaker.js';

/**
 * When a circuit breaker opens and closes. The default share is resilience4j's. Its minimum of 100 calls would be more
 * than one process of workers makes to one dependency in a minute.
 */
export interface CircuitBreakerOptions {
  /** How long a call counts, in milliseconds. Default: 60,000. */
  readonly windowMs?: number;
  /** The circuit stays closed while it knows of fewer calls, since three failures of four say little. Default: 20. */
  readonly minimumCalls?: number;
  /** The share of failures at which it opens, in (0, 1]. Default: 0.5. */
  readonly failureShare?: number;
  /** How long it is open the first time, in milliseconds; doubled each time a probe fails. Default: 30,000. */
  readonly openMs?: number;
  /** The longest open time, in milliseconds. Default: 300,000. */
  readonly maxOpenMs?: number;
  /** How many probes in a row must succeed. Default: 2, because one may have been luck. */
  readonly successes?: number;
  /**
   * How long a probe keeps others out, in milliseconds. A probe that was lost with its worker must not block the way for
   * good. Default: 35,000: an attempt's default timeout of 30 s, and 5 s to record its outcome.
   */
  readonly probeLeaseMs?: number;
  /** A monotonic clock, in milliseconds. Default: `performance.now`. */
  readonly now?: () => number;
  /** A source of numbers in [0, 1). Default: `Math.random`. */
  readonly random?: () => number;
  /** Called after each change, with the new state. Must not throw. */
  readonly onChange?: (state: CircuitState) => void;
}

/** @internal */
export const DEFAULT_WINDOW_MS = 60_000;

const DEFAULTS: Required<CircuitBreakerOptions> = {
  windowMs: DEFAULT_WINDOW_MS,
  minimumCalls: 20,
  failureShare: 0.5,
  openMs: 30_000,
  maxOpenMs: 300_000,
  successes: 2,
  probeLeaseMs: 35_000,
  now: () => performance.now(),
  random: Math.random,
  onChange: () => undefined,
};

/** The options with their defaults; an option that is given as undefined counts as missing. @internal */
export function resolveBreakerOptions(options: CircuitBreakerOptions): Required<CircuitBreakerOptions> {
  const given = Object.entries(options).filter(([, value]) => value !== undefined);
  return { ...DEFAULTS, ...(Object.fromEntries(given) as CircuitBreakerOptions) };
}
