import { WorkerHost } from '@nestjs/bullmq';
import {
  currentOperation,
  IdempotentProcessor,
  type OperationJob,
  type ResultOf,
} from 'nestjs-idempotent-jobs';
import { PACE } from '../pace.js';
import { OrderReceipt } from './order-receipt.js';
import { ReceiptPayload, RECEIPTS, type ReceiptJobs } from './receipt.jobs.js';

/**
 * Mails the receipt. SMTP has no idempotency keys: a mail that is sent twice arrives twice. So the effect is
 * `unrepeatable`. A refusal is retried; a lost answer or a crash leaves the receipt in doubt, and never causes a second
 * mail.
 */
@IdempotentProcessor<ReceiptJobs>(
  RECEIPTS,
  { effect: 'unrepeatable', payload: ReceiptPayload, retry: 'mail', dependency: 'mail' },
  PACE,
)
export class ReceiptProcessor extends WorkerHost {
  constructor(private readonly receipt: OrderReceipt) {
    super();
  }

  process({ data }: OperationJob<ReceiptJobs>): Promise<ResultOf<ReceiptJobs>> {
    return this.receipt.send(currentOperation(), data);
  }
}
