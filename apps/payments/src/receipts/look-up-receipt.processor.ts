import { WorkerHost } from '@nestjs/bullmq';
import {
  type CurrentOperation,
  currentOperation,
  IdempotentProcessor,
  type OperationJob,
  type Reconciles,
  Reconciliation,
  type ResultOf,
} from 'nestjs-idempotent-jobs';
import { PACE, QUESTIONS } from '../pace.js';
import { MailboxClient } from './mailbox-client.js';
import { messageIdOf, OrderReceipt } from './order-receipt.js';
import { ReceiptPayload, RECEIPTS, type ReceiptJobs } from './receipt.jobs.js';

/**
 * Mails the receipt through a provider whose mailbox can be looked up. SMTP has no idempotency keys, but every mail has a
 * Message-ID, and here it is the same on every attempt. So the effect is `reconciled`: after a lost answer or a crash the
 * mail is looked up, and sent again only if it is not there.
 */
@IdempotentProcessor<ReceiptJobs>(
  RECEIPTS,
  {
    effect: 'reconciled',
    reconcile: QUESTIONS,
    payload: ReceiptPayload,
    retry: 'mail',
    dependency: 'mail',
  },
  PACE,
)
export class LookUpReceiptProcessor extends WorkerHost implements Reconciles<ResultOf<ReceiptJobs>> {
  constructor(
    private readonly receipt: OrderReceipt,
    private readonly mailbox: MailboxClient,
  ) {
    super();
  }

  process({ data }: OperationJob<ReceiptJobs>): Promise<ResultOf<ReceiptJobs>> {
    return this.receipt.send(currentOperation(), data);
  }

  /** Throws when the mailbox does not answer, so that the question stays open. */
  async reconcile(operation: CurrentOperation): Promise<Reconciliation<ResultOf<ReceiptJobs>>> {
    const messageId = messageIdOf(operation);
    const isThere = await this.mailbox.has(messageId, operation.signal);
    return isThere ? Reconciliation.applied({ messageId }) : Reconciliation.notApplied();
  }
}
