import type { AbandonReason, Attempt } from './attempt.js';

/** The attempts that run in this process right now. */
export class AttemptRegistry {
  readonly #attempts = new Set<Attempt>();

  /** Returns how to leave again. */
  add(attempt: Attempt): () => void {
    this.#attempts.add(attempt);
    return () => this.#attempts.delete(attempt);
  }

  /** How many deliveries are under way. */
  get size(): number {
    return this.#attempts.size;
  }

  abandonAll(why: AbandonReason): void {
    for (const attempt of this.#attempts) attempt.abandon(why);
  }
}
