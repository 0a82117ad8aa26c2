/**
 * How the time between two attempts is spread:
 *
 * - `full`: anywhere between zero and the bound. Spreads a herd the widest, so it costs a struggling service the least.
 * - `equal`: the upper half of the bound. For a service that always needs some rest.
 * - `decorrelated`: between the base and three times the last wait. Grows by itself, without counting failures.
 *
 * Compared by M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
 */
export type Jitter = 'full' | 'equal' | 'decorrelated';

/** How long to wait between attempts. */
export interface BackoffOptions {
  /** The first wait's upper bound, in milliseconds; with `decorrelated` jitter the shortest wait. */
  baseMs: number;
  /** The longest wait, in milliseconds; only a wait that the service asked for may be longer. */
  capMs: number;
  /** How the waits are spread. Default: `full`. */
  jitter?: Jitter;
  /**
   * The base after a failure by which the service asked for fewer calls (429, 503 with Retry-After, throttling), in
   * milliseconds; never less than `baseMs`. Default: five times `baseMs`, so 5 s where that is 1 s.
   */
  throttledBaseMs?: number;
}

/** What has happened so far. */
export interface BackoffFacts {
  /** How many attempts have failed, from 1. */
  readonly failures: number;
  /**
   * The last wait, in milliseconds. Undefined when there was none or it is not known. Only `decorrelated` jitter uses it.
   */
  readonly previousMs?: number | undefined;
  /** Whether the service asked for fewer calls with the last failure. */
  readonly isThrottled: boolean;
}

/** As in AWS SDK v3: its first wait is 500 ms when it was throttled, and 100 ms otherwise. */
const THROTTLED_FACTOR = 5;

/**
 * How long to wait after a failure, in whole milliseconds. With `e = min(cap, base · 2^(failures − 1))`: `full` is
 * U(0, e), `equal` is e/2 + U(0, e/2), `decorrelated` is min(cap, U(base, 3 · previous)).
 *
 * @param random a source of numbers in [0, 1)
 */
export function backoffMs(facts: BackoffFacts, options: BackoffOptions, random: () => number): number {
  const { baseMs, capMs, jitter = 'full', throttledBaseMs = THROTTLED_FACTOR * baseMs } = options;
  const base = facts.isThrottled ? Math.max(baseMs, throttledBaseMs) : baseMs;
  // 2^53 is above any cap; the exponent is bounded only to keep the number finite.
  const bound = Math.min(capMs, base * 2 ** Math.min(facts.failures - 1, 52));
  switch (jitter) {
    case 'full':
      return Math.floor(random() * bound);
    case 'equal':
      return Math.floor(bound / 2 + (random() * bound) / 2);
    case 'decorrelated': {
      // After a short wait, or with a base that has just grown, three times the last wait may be less than the base.
      const widest = Math.max(base, 3 * (facts.previousMs ?? base));
      return Math.floor(Math.min(capMs, base + random() * (widest - base)));
    }
    default:
      return jitter satisfies never;
  }
}
