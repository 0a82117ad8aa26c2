import { Injectable, Logger } from '@nestjs/common';
import { type DeadLetterMessage, OnDeadLetter } from 'nestjs-idempotent-jobs/dead-letters';

/** Logs every dead letter. A real shop would page the operator on call. */
@Injectable()
export class Alerts {
  readonly #logger = new Logger('Alerts');

  @OnDeadLetter()
  tell({ reason, tenantId, operationKey, letterId }: DeadLetterMessage): void {
    this.#logger.warn(
      `${reason}: ${operationKey} of ${tenantId}. Look: npx -p nestjs-idempotent-jobs idempotent-jobs letters ${letterId}`,
    );
  }
}
