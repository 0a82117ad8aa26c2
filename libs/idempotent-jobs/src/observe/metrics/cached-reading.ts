import { isOverWithin } from '../../operation/within.js';

/** How long a reading may keep whoever asks waiting: a scrape has a timeout of its own, mostly 10 s. */
const TIMEOUT_MS = 2_000;

/** How long a reading is given out, also one that failed: counting is not for free, and scrapers come as they like. */
const CACHE_MS = 10_000;

/**
 * A reading that does not end (a connection that died without a word) keeps its place for so long. Others would only
 * pile up behind it.
 */
const ABANDONED_AFTER_MS = 60_000;

/** Something that is read at most every 10 s, by whoever asks, and never by two at a time. */
export class CachedReading<T> {
  #value: T | undefined;
  #freshUntil = -Infinity;
  #reading: Promise<void> | undefined;
  #startedAt = -Infinity;

  constructor(
    private readonly read: () => Promise<T>,
    private readonly now: () => number = () => performance.now(),
  ) {}

  /** Never rejects. Undefined: it could not be read, or not in time. */
  async get(): Promise<T | undefined> {
    const now = this.now();
    if (now < this.#freshUntil) return this.#value;
    if (this.#reading === undefined || now - this.#startedAt >= ABANDONED_AFTER_MS) this.#start(now);
    // One that has kept somebody waiting in vain keeps nobody else.
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
