import { outsideOfAnyFrame } from '../../tenancy/frames.js';

/**
 * When the time of each run is over. They share one timer, which is set for the first of them: nearly all runs end before
 * their time.
 */
export class RunDeadlines {
  readonly #ends = new Map<TimedRun, { readonly at: number; readonly timeoutMs: number }>();
  #timer: NodeJS.Timeout | undefined;
  #firesAt = Infinity;

  set(run: TimedRun, timeoutMs: number): void {
    const at = performance.now() + timeoutMs;
    this.#ends.set(run, { at, timeoutMs });
    if (at < this.#firesAt) this.#arm(at);
  }

  delete(run: TimedRun): void {
    if (this.#ends.delete(run) && this.#ends.size === 0) this.#disarm();
  }

  /** The timer belongs to none of the runs' tenants. */
  #arm(at: number): void {
    clearTimeout(this.#timer);
    this.#firesAt = at;
    const inMs = Math.min(Math.ceil(at - performance.now()), MAX_TIMER_MS);
    this.#timer = outsideOfAnyFrame(() => setTimeout(() => this.#fire(), inMs));
  }

  #disarm(): void {
    clearTimeout(this.#timer);
    this.#firesAt = Infinity;
  }

  #fire(): void {
    this.#firesAt = Infinity;
    const now = performance.now();
    for (const [run, { at, timeoutMs }] of this.#ends)
      if (at <= now) run.abandon('timeout', `it took longer than its ${Math.round(timeoutMs)} ms`);
    const next = Math.min(...[...this.#ends.values()].map(({ at }) => at));
    if (next < this.#firesAt) this.#arm(next);
  }
}

/** What is abandoned when its time is over. */
interface TimedRun {
  abandon(by: 'timeout', detail: string): void;
}

/** The longest time that a timer of Node can be set for. */
const MAX_TIMER_MS = 2 ** 31 - 1;
