import { type CallHandler, type ExecutionContext, Injectable, type NestInterceptor } from '@nestjs/common';
import type { Job } from 'bullmq';
import { from, lastValueFrom, type Observable } from 'rxjs';
import { GuardedRun } from './guarded-run.js';

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
