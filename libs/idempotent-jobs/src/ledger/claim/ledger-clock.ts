/** Estimates the database's clock from its answers, so that a statement can say until when its answer is waited for. */
export class LedgerClock {
  /** By how much the database's time, in ms since 1970, is ahead of this process's monotonic time. */
  #ahead = -Infinity;
  /** The same from before the current minute began. Older values are dropped, because clocks drift apart. */
  #aheadBefore = -Infinity;
  #minuteEndsAt = -Infinity;

  constructor(private readonly monotonicMs: () => number = () => performance.now()) {}

  /** Takes the time that an answer contains. It is later by now, so the fastest answer gives the best estimate. */
  heard(databaseMs: number): void {
    const now = this.monotonicMs();
    if (now >= this.#minuteEndsAt) {
      this.#aheadBefore = this.#ahead;
      this.#ahead = -Infinity;
      this.#minuteEndsAt = now + MINUTE_MS;
    }
    this.#ahead = Math.max(this.#ahead, databaseMs - now);
  }

  /** The database's time `ms` from now, or slightly less. Null when the clock was never heard. */
  in(ms: number): number | null {
    const ahead = Math.max(this.#ahead, this.#aheadBefore);
    return ahead === -Infinity ? null : ahead + this.monotonicMs() + ms;
  }
}

const MINUTE_MS = 60_000;
