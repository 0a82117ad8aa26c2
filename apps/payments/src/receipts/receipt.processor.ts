import { WorkerHost } from '@nestjs/bullmq';
import { InjectRepository } from '@nestjs/typeorm';
import {
  currentOperation,
  IdempotentProcessor,
  type OperationJob,
  type ResultOf,
} from 'nestjs-idempotent-jobs';
import { Repository } from 'typeorm';
import { Order } from '../orders/order.entity.js';
import { PACE, PATIENCE } from '../pace.js';
import { Settings } from '../settings.js';
import { Mailer } from './mailer.js';
import { ReceiptPayload, RECEIPTS, type ReceiptJobs } from './receipt.jobs.js';
import { receiptMail } from './receipt-mail.js';

/**
 * Mails the receipt. SMTP knows no idempotency keys: what was sent twice arrives twice. So the effect is `unrepeatable`.
 * A refusal is tried again; a lost answer, or a crash, leaves the receipt in doubt, and never means a second mail.
 */
@IdempotentProcessor<ReceiptJobs>(
  RECEIPTS,
  { effect: 'unrepeatable', payload: ReceiptPayload, timeoutMs: 20_000, retry: PATIENCE, clientRetries: 0 },
  PACE,
)
export class ReceiptProcessor extends WorkerHost {
  constructor(
    private readonly mailer: Mailer,
    private readonly settings: Settings,
    @InjectRepository(Order) private readonly orders: Repository<Order>,
  ) {
    super();
  }

  async process({ data }: OperationJob<ReceiptJobs>): Promise<ResultOf<ReceiptJobs>> {
    const { tenantId, operationKey, attempt, fencingToken, idempotencyKey } = currentOperation();
    const order = await this.orders.findOneByOrFail({ tenantId, id: data.orderId });
    // The same on every attempt, so that a person who looks into a mailbox can tell whether it has arrived.
    const messageId = `${idempotencyKey}@${tenantId}.test`;
    await this.mailer.send({
      ...receiptMail(tenantId, order, data.chargeId),
      messageId,
      headers: {
        'X-Tenant': tenantId,
        'X-Operation-Key': operationKey,
        'X-Attempt': String(attempt),
        'X-Fencing-Token': String(fencingToken),
        'X-Worker': this.settings.workerName,
      },
    });
    return { messageId };
  }
}
