import type { Job } from 'bullmq';
import { type AttemptResult, errorOf } from '../attempt/attempt-result.js';
import { UsageError } from '../../operation/errors.js';
import { frames } from '../../tenancy/frames.js';

/**
 * A delivery on its way through guards and interceptors. The frame of its job holds it, and the library's interceptor finds
 * it there: behind the guards, where the ledger is asked.
 */
export class GuardedRun {
  #result: Promise<AttemptResult> | undefined;

  constructor(
    private readonly job: Job,
    private readonly attempt: (handler: () => Promise<unknown>) => Promise<AttemptResult>,
  ) {}

  /** Undefined: no guard has let the delivery through. */
  get result(): Promise<AttemptResult> | undefined {
    return this.#result;
  }

  /** Lets the interceptor find it. To be called in the frame of the job. */
  enter(): void {
    const frame = frames.getStore();
    if (frame !== undefined) frame.guarded = this;
  }

  /**
   * Runs the attempt. Called again for the same delivery, by an interceptor that retries, it answers with the same attempt.
   *
   * Rejects with what the attempt failed with, or why it was put off.
   */
  async run(handler: () => Promise<unknown>): Promise<unknown> {
    this.#result ??= this.attempt(handler);
    const result = await this.#result;
    if (result.kind === 'completed' || result.kind === 'replayed') return result.result;
    throw result.kind === 'deferred' ? errorOf(result) : result.error;
  }

  /** The one that the code runs in. @throws UsageError where there is none, or another job's */
  static of(job: Job): GuardedRun {
    const guarded = frames.getStore()?.guarded;
    if (guarded instanceof GuardedRun && guarded.job === job) return guarded;
    throw new UsageError(
      'IdempotencyInterceptor works only on classes with @IdempotentProcessor(), which puts it there, and in the asynchronous context of its job. Remove it from @UseInterceptors().',
    );
  }
}
