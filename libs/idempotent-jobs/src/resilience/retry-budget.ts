import { RollingWindow } from './rolling-window.js';

/**
 * How many retries a dependency gets. Modelled on Finagle's `RetryBudget`, which has twice the share, ten times the
 * floor.
 */
export interface RetryBudgetOptions {
  /** Retries per first try. Default: 0.1, so that a dependency which fails every call gets only a tenth more calls. */
  readonly ratio?: number;
  /** Retries per second that are always allowed, so that a rare job is retried too. Default: 1. */
  readonly minPerSecond?: number;
  /** How long a first try counts, in milliseconds. Default: 10,000. */
  readonly windowMs?: number;
  /** A monotonic clock, in milliseconds. Default: `performance.now`. */
  readonly now?: () => number;
}

const BUCKETS = 10;

/**
 * Limits the retries against one dependency by its first tries: each first try is a deposit, a retry withdraws
 * `1 / ratio` of them. Deposits and withdrawals expire together, after `windowMs` to 1.1 `windowMs`.
 *
 * The bound, for a retry granted at time t: the retries granted in the last `windowMs`, this one included, are at most
 * `ratio` times the first tries of the last 1.1 `windowMs`, plus `minPerSecond · windowMs / 1000`. So in any window of
 * `windowMs`, however aligned, the bound of the last retry granted in it holds.
 *
 * A retry that was granted and then not made is not given back: the load that prevented it is what the budget guards
 * against.
 */
export class RetryBudget {
  readonly #ratio: number;
  readonly #floor: number;
  readonly #now: () => number;
  readonly #triesAndRetries: RollingWindow;

  constructor(options: RetryBudgetOptions = {}) {
    const { ratio = 0.1, minPerSecond = 1, windowMs = 10_000, now = () => performance.now() } = options;
    this.#ratio = ratio;
    this.#floor = (minPerSecond * windowMs) / 1_000;
    this.#now = now;
    // One bucket more than the window: the bucket that is being filled is not complete.
    this.#triesAndRetries = new RollingWindow(BUCKETS + 1, windowMs / BUCKETS);
  }

  /** Counts a first try. */
  deposit(): void {
    this.#triesAndRetries.add(this.#now(), 1, 0);
  }

  /** Whether a retry could be made now. */
  get hasRoom(): boolean {
    const { first: tries, second: retries } = this.#triesAndRetries.totals(this.#now());
    return retries + 1 <= this.#ratio * tries + this.#floor;
  }

  /** Whether a retry may be made; if so, it is counted. */
  tryWithdraw(): boolean {
    if (!this.hasRoom) return false;
    this.#triesAndRetries.add(this.#now(), 0, 1);
    return true;
  }
}
