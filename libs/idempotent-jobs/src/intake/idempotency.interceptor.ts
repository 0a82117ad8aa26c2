import { type CallHandler, type ExecutionContext, Injectable, type NestInterceptor } from '@nestjs/common';
import { from, lastValueFrom, type Observable } from 'rxjs';
import type { Job } from 'bullmq';
import { ProcessorHost } from './processor-host.js';

/**
 * Stands between an idempotent processor's guards and its handler: asks the ledger, and calls the handler only if this
 * delivery may run it. A recorded outcome is answered without calling it. Put in place by `@IdempotentProcessor()`.
 */
@Injectable()
export class IdempotencyInterceptor implements NestInterceptor {
  /** @internal Injected. */
  constructor(private readonly host: ProcessorHost) {}

  intercept(context: ExecutionContext, next: CallHandler): Observable<unknown> {
    const [job] = context.getArgs<[Job]>();
    return from(this.host.attempt(job, () => lastValueFrom(next.handle(), { defaultValue: undefined })));
  }
}
