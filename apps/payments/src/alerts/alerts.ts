import { Injectable, Logger } from '@nestjs/common';
import { type DeadLetterMessage, OnDeadLetter } from 'nestjs-idempotent-jobs/dead-letters';

/** Tells whoever is on call of every operation that was given up on. A real shop would page somebody. */
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
