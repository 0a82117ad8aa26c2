import { type CallHandler, type ExecutionContext, Injectable, type NestInterceptor } from '@nestjs/common';
import type { Job } from 'bullmq';
import { from, lastValueFrom, type Observable } from 'rxjs';
import { type AttemptResult, errorOf } from '../attempt/attempt-result.js';
import { UsageError } from '../../operation/errors.js';
import { frames } from '../../tenancy/frames.js';

/**
 * A delivery on its way through guards and interceptors. The frame of its job holds it, so that the library's
 * interceptor finds it: behind the guards, where the ledger is asked.
 */
export class GuardedRun {
  #result: Promise<AttemptResult> | undefined;

  constructor(
    private readonly job: Job,
    private readonly attempt: (handler: () => Promise<unknown>) => Promise<AttemptResult>,
  ) {}

  /** Undefined when the guards have not let the delivery through. */
  get result(): Promise<AttemptResult> | undefined {
    return this.#result;
  }

  /** Lets the interceptor find this delivery. Must be called in the frame of the job. */
  enter(): void {
    const frame = frames.getStore();
    if (frame !== undefined) frame.guarded = this;
  }

  /**
   * Runs the attempt. When an interceptor that retries calls it again, it answers with the same attempt.
   *
   * Rejects with what the attempt failed with, or why it was deferred.
   */
  async run(handler: () => Promise<unknown>): Promise<unknown> {
    this.#result ??= this.attempt(handler);
    const result = await this.#result;
    if (result.kind === 'completed' || result.kind === 'replayed') return result.result;
    throw result.kind === 'deferred' ? errorOf(result) : result.error;
  }

  /** The delivery that the calling code runs in. @throws UsageError if there is none, or it is another job's */
  static of(job: Job): GuardedRun {
    const guarded = frames.getStore()?.guarded;
    if (guarded instanceof GuardedRun && guarded.job === job) return guarded;
    throw new UsageError(
      'IdempotencyInterceptor works only on classes with @IdempotentProcessor(), which puts it there, and in the asynchronous context of its job. Remove it from @UseInterceptors().',
    );
  }
}

/**
 * Stands between an idempotent processor's guards and its handler: asks the ledger, and calls the handler only if this
 * delivery may run it. A recorded outcome is replayed without calling it. `@IdempotentProcessor()` puts it in place.
 */
@Injectable()
export class IdempotencyInterceptor implements NestInterceptor {
  intercept(context: ExecutionContext, next: CallHandler): Observable<unknown> {
    const [job] = context.getArgs<[Job]>();
    const handler = (): Promise<unknown> => lastValueFrom(next.handle(), { defaultValue: undefined });
    return from(GuardedRun.of(job).run(handler));
  }
}
