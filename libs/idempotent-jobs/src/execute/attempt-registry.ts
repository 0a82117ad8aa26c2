import { isOverWithin } from '../within.js';
import type { AbandonReason, Attempt } from './attempt.js';

/** The attempts that run in this process right now. */
export class AttemptRegistry {
  readonly #attempts = new Set<Attempt>();
  #onEmpty: (() => void)[] = [];

  /** Returns how to leave again. */
  add(attempt: Attempt): () => void {
    this.#attempts.add(attempt);
    return () => {
      this.#attempts.delete(attempt);
      if (this.#attempts.size > 0) return;
      for (const tell of this.#onEmpty.splice(0)) tell();
    };
  }

  /** How many deliveries are under way. */
  get size(): number {
    return this.#attempts.size;
  }

  /** Waits until none is under way, for at most `ms`; whether that is so. */
  async isEmptyWithin(ms: number): Promise<boolean> {
    if (this.#attempts.size === 0) return true;
    return isOverWithin(ms, new Promise<void>((resolve) => this.#onEmpty.push(resolve)));
  }

  abandonAll(why: AbandonReason): void {
    for (const attempt of this.#attempts) attempt.abandon(why);
  }
}
