import { WorkerHost } from '@nestjs/bullmq';
import {
  currentOperation,
  IdempotentProcessor,
  type IdempotentQueue,
  InjectIdempotentQueue,
  type OperationJob,
  type ResultOf,
} from 'nestjs-idempotent-jobs';
import { CHARGES, chargeKeyOf, type ChargeJobs } from '../charges/charge.jobs.js';
import { Order } from '../orders/order.entity.js';
import { PACE } from '../pace.js';
import { INVENTORY, ReservePayload, type InventoryJobs } from './inventory.jobs.js';
import { takeFromStock } from './stock.js';

/**
 * Puts an order's goods aside. Its whole effect is in our own database, so it is `transactional`: stock, reservation,
 * outcome and the order for the charge are committed together, or nothing is.
 */
@IdempotentProcessor<InventoryJobs>(
  INVENTORY,
  { effect: 'transactional', payload: ReservePayload, timeoutMs: 10_000 },
  PACE,
)
export class InventoryProcessor extends WorkerHost {
  constructor(@InjectIdempotentQueue(CHARGES) private readonly charges: IdempotentQueue<ChargeJobs>) {
    super();
  }

  async process({ data }: OperationJob<InventoryJobs>): Promise<ResultOf<InventoryJobs>> {
    const operation = currentOperation();
    const { tenantId, transaction } = operation;
    const { orderId, sku, quantity } = data;
    const left = await takeFromStock(transaction, { tenantId, orderId, sku, quantity });
    const order = await transaction.findOneByOrFail(Order, { tenantId, id: orderId });
    operation.enqueue(
      this.charges,
      'charge',
      { orderId: order.id, amountCents: order.amountCents, currency: order.currency },
      { operationKey: chargeKeyOf(order.id) },
    );
    return { left };
  }
}
