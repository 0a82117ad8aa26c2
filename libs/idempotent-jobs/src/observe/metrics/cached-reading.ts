import { isOverWithin } from '../../operation/within.js';

/** The longest wait for a reading: a scrape has its own timeout, mostly 10 s. */
const TIMEOUT_MS = 2_000;

/** How long a reading is reused, also a failed one: counting has a cost, and scrapers may come at any rate. */
const CACHE_MS = 10_000;

/**
 * How long a reading that does not end (its connection died silently) keeps others from starting: they would only pile up
 * behind it.
 */
const ABANDONED_AFTER_MS = 60_000;

/** A value that is read at most every 10 s, on request, and never twice at the same time. */
export class CachedReading<T> {
  #value: T | undefined;
  #freshUntil = -Infinity;
  #reading: Promise<void> | undefined;
  #startedAt = -Infinity;

  constructor(
    private readonly read: () => Promise<T>,
    private readonly now: () => number = () => performance.now(),
  ) {}

  /** Never rejects. Undefined when the value could not be read, or not in time. */
  async get(): Promise<T | undefined> {
    const now = this.now();
    if (now < this.#freshUntil) return this.#value;
    if (this.#reading === undefined || now - this.#startedAt >= ABANDONED_AFTER_MS) this.#start(now);
    // The wait counts from the start of the reading: once it has taken too long, later callers do not wait for it.
    const leftMs = this.#startedAt + TIMEOUT_MS - now;
    const isOver = leftMs > 0 && (await isOverWithin(leftMs, this.#reading as Promise<void>));
    return isOver ? this.#value : undefined;
  }

  #start(now: number): void {
    this.#startedAt = now;
    const reading: Promise<void> = this.#answer().then((value) => {
      if (this.#reading !== reading) return;
      this.#value = value;
      this.#freshUntil = this.now() + CACHE_MS;
      this.#reading = undefined;
    });
    this.#reading = reading;
  }

  async #answer(): Promise<T | undefined> {
    try {
      return await this.read();
    } catch {
      return undefined;
    }
  }
}
