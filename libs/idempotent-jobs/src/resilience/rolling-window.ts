/** The sums of a {@link RollingWindow}. */
export interface WindowTotals {
  readonly first: number;
  readonly second: number;
}

/**
 * Two counters over the recent past, in a ring of buckets. It expires by the clock, so that it also forgets while nothing
 * is counted. It remembers for at least `buckets − 1` and less than `buckets` times `bucketMs`, because the bucket that
 * is being filled is not complete.
 *
 * @internal
 */
export class RollingWindow {
  readonly #first: Float64Array;
  readonly #second: Float64Array;
  /** The number of the newest bucket on the monotonic clock. Undefined until something is counted. */
  #newest: number | undefined;

  /** @param bucketMs how long a bucket is filled, in milliseconds */
  constructor(
    buckets: number,
    private readonly bucketMs: number,
  ) {
    this.#first = new Float64Array(buckets);
    this.#second = new Float64Array(buckets);
  }

  /** @param nowMs of a monotonic clock; a time before the last one counts as the last one */
  add(nowMs: number, first: number, second: number): void {
    const place = this.#advance(nowMs) % this.#first.length;
    this.#first[place] = (this.#first[place] ?? 0) + first;
    this.#second[place] = (this.#second[place] ?? 0) + second;
  }

  totals(nowMs: number): WindowTotals {
    this.#advance(nowMs);
    return { first: sum(this.#first), second: sum(this.#second) };
  }

  /** Empties the buckets that are about to be used again. */
  #advance(nowMs: number): number {
    const current = Math.floor(nowMs / this.bucketMs);
    const newest = this.#newest ?? current;
    if (current <= newest) return (this.#newest = newest);
    const { length } = this.#first;
    for (let bucket = Math.max(newest + 1, current - length + 1); bucket <= current; bucket += 1) {
      this.#first[bucket % length] = 0;
      this.#second[bucket % length] = 0;
    }
    return (this.#newest = current);
  }
}

function sum(counts: Float64Array): number {
  let total = 0;
  for (const count of counts) total += count;
  return total;
}
