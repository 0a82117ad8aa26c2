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
import { INVENTORY, type InventoryJobs, ReservePayload, ShipPayload } from './inventory.jobs.js';
import { reserve, ship } from './stock.js';

/**
 * Puts an order's goods aside, and ships them once they are paid for. The whole effect is in the shop's own database, so
 * it is `transactional`: stock, reservation, outcome and the enqueued charge are committed together, or nothing is.
 *
 * Outcomes are pruned after a while, reservations are not. A job that is repeated even later finds its work done, and
 * returns the same result.
 */
@IdempotentProcessor<InventoryJobs>(
  INVENTORY,
  {
    effect: 'transactional',
    payload: { reserve: ReservePayload, ship: ShipPayload },
    timeoutMs: 10_000,
  },
  PACE,
)
export class InventoryProcessor extends WorkerHost {
  constructor(@InjectIdempotentQueue(CHARGES) private readonly charges: IdempotentQueue<ChargeJobs>) {
    super();
  }

  async process(job: OperationJob<InventoryJobs>): Promise<ResultOf<InventoryJobs>> {
    switch (job.name) {
      case 'reserve':
        return this.reserve(job.data);
      case 'ship':
        return this.ship(job.data);
      default:
        return job satisfies never;
    }
  }

  private async reserve({
    orderId,
    sku,
    quantity,
  }: ReservePayload): Promise<ResultOf<InventoryJobs, 'reserve'>> {
    const operation = currentOperation();
    const { tenantId, transaction } = operation;
    const status = await reserve(transaction, { tenantId, orderId, sku, quantity });
    // Goods that were shipped are already paid for; goods that were released never will be.
    if (status === 'reserved') {
      const { amountCents, currency } = await transaction.findOneByOrFail(Order, { tenantId, id: orderId });
      const charge = { orderId, amountCents, currency };
      operation.enqueue(this.charges, 'charge', charge, { operationKey: chargeKeyOf(orderId) });
    }
    return { quantity };
  }

  private async ship({ orderId }: ShipPayload): Promise<ResultOf<InventoryJobs, 'ship'>> {
    const { tenantId, transaction } = currentOperation();
    const shippedAt = await ship(transaction, tenantId, orderId);
    return { shippedAt: shippedAt.toISOString() };
  }
}
