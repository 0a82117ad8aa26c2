/**
 * What the database's clock says, as far as its answers tell: a statement can say until when its answer is waited for, by
 * the only clock that counts.
 */
export class LedgerClock {
  /** By how much the database's time, in ms since 1970, is ahead of this process's monotonic time. */
  #ahead = -Infinity;
  /** What was known before the last minute began: clocks drift apart. */
  #aheadBefore = -Infinity;
  #minuteEndsAt = -Infinity;

  constructor(private readonly monotonicMs: () => number = () => performance.now()) {}

  /** An answer said what time it was when it was given. It is later by now: the answer that came fastest knows best. */
  heard(databaseMs: number): void {
    const now = this.monotonicMs();
    if (now >= this.#minuteEndsAt) {
      this.#aheadBefore = this.#ahead;
      this.#ahead = -Infinity;
      this.#minuteEndsAt = now + MINUTE_MS;
    }
    this.#ahead = Math.max(this.#ahead, databaseMs - now);
  }

  /** The database's time `ms` from now, or a little before that; null: it has never been heard. */
  in(ms: number): number | null {
    const ahead = Math.max(this.#ahead, this.#aheadBefore);
    return ahead === -Infinity ? null : ahead + this.monotonicMs() + ms;
  }
}

const MINUTE_MS = 60_000;
