import type { AbandonReason, Attempt } from './attempt.js';

/**
 * The attempts that run in this process right now, by queue and job. A lock token serves several jobs and a job can
 * be delivered twice to one process, so a job may have more than one.
 */
export class AttemptRegistry {
  readonly #attempts = new Map<Attempt, string>();

  add(queue: string, jobId: string, attempt: Attempt): () => void {
    this.#attempts.set(attempt, `${queue}:${jobId}`);
    return () => this.#attempts.delete(attempt);
  }

  /** How many deliveries are under way. */
  get size(): number {
    return this.#attempts.size;
  }

  abandonJob(queue: string, jobId: string, why: AbandonReason): void {
    for (const [attempt, job] of this.#attempts) if (job === `${queue}:${jobId}`) attempt.abandon(why);
  }

  abandonAll(why: AbandonReason): void {
    for (const attempt of this.#attempts.keys()) attempt.abandon(why);
  }
}
