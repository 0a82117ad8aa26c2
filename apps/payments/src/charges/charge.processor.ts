import { WorkerHost } from '@nestjs/bullmq';
import {
  currentOperation,
  IdempotentProcessor,
  type IdempotentQueue,
  InjectIdempotentQueue,
  type OperationJob,
  type ResultOf,
} from 'nestjs-idempotent-jobs';
import { PACE, PATIENCE } from '../pace.js';
import { receiptKeyOf, RECEIPTS, type ReceiptJobs } from '../receipts/receipt.jobs.js';
import { Settings } from '../settings.js';
import { ChargePayload, CHARGES, type ChargeJobs } from './charge.jobs.js';
import { PaymentGateway } from './payment-gateway.js';

/**
 * Charges the customer's card. The gateway honours idempotency keys, so the effect is `keyed`: after a lost answer or a
 * crash the same key is sent again, and the gateway answers with the charge that it has already made.
 */
@IdempotentProcessor<ChargeJobs>(
  CHARGES,
  { effect: 'keyed', payload: ChargePayload, timeoutMs: 15_000, retry: PATIENCE, clientRetries: 0 },
  PACE,
)
export class ChargeProcessor extends WorkerHost {
  constructor(
    private readonly gateway: PaymentGateway,
    private readonly settings: Settings,
    @InjectIdempotentQueue(RECEIPTS) private readonly receipts: IdempotentQueue<ReceiptJobs>,
  ) {
    super();
  }

  async process({ data }: OperationJob<ChargeJobs>): Promise<ResultOf<ChargeJobs>> {
    const operation = currentOperation();
    const { orderId, amountCents, currency } = data;
    const { chargeId } = await this.gateway.charge(
      { tenant: operation.tenantId, orderId, amountCents, currency },
      {
        'idempotency-key': operation.idempotencyKey,
        'x-tenant': operation.tenantId,
        'x-attempt': String(operation.attempt),
        'x-fencing-token': String(operation.fencingToken),
        'x-worker': this.settings.workerName,
      },
      operation.signal,
    );
    operation.enqueue(
      this.receipts,
      'receipt',
      { orderId, chargeId },
      { operationKey: receiptKeyOf(orderId) },
    );
    return { chargeId };
  }
}
