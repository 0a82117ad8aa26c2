/** How long to wait between attempts. */
export interface BackoffOptions {
  /** The first wait's upper bound, in milliseconds. */
  baseMs: number;
  /** No wait is longer, in milliseconds. */
  capMs: number;
}

/**
 * Exponential backoff with full jitter: a random time between 0 and `min(cap, base · 2^(failures − 1))`. Full jitter
 * spreads a herd of retries over the whole interval, which costs a struggling service the least (M. Brooker,
 * "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
 *
 * @param failures how many attempts have failed, from 1
 * @param random a source of numbers in [0, 1)
 * @returns whole milliseconds
 */
export function fullJitterMs(
  failures: number,
  { baseMs, capMs }: BackoffOptions,
  random: () => number,
): number {
  // 2^53 and beyond stay above any cap; the exponent is bounded only to keep the number finite.
  const ceiling = Math.min(capMs, baseMs * 2 ** Math.min(failures - 1, 52));
  return Math.floor(random() * ceiling);
}
