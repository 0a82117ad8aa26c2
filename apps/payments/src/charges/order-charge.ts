import { Injectable } from '@nestjs/common';
import { type CurrentOperation, type IdempotentQueue, InjectIdempotentQueue } from 'nestjs-idempotent-jobs';
import { INVENTORY, type InventoryJobs, shipKeyOf } from '../inventory/inventory.jobs.js';
import { receiptKeyOf, RECEIPTS, type ReceiptJobs } from '../receipts/receipt.jobs.js';
import { Settings } from '../settings.js';
import type { ChargePayload } from './charge.jobs.js';
import { type Charge, PaymentGateway } from './payment-gateway.js';

/**
 * The parts that every charge processor shares: the call, and the next steps once the charge is known to have happened.
 */
@Injectable()
export class OrderCharge {
  constructor(
    private readonly gateway: PaymentGateway,
    private readonly settings: Settings,
    @InjectIdempotentQueue(RECEIPTS) private readonly receipts: IdempotentQueue<ReceiptJobs>,
    @InjectIdempotentQueue(INVENTORY) private readonly inventory: IdempotentQueue<InventoryJobs>,
  ) {}

  /** Calls the gateway, with a key if the gateway can use one. */
  make(operation: CurrentOperation, payload: ChargePayload, key?: string): Promise<Charge> {
    const { tenantId, attempt, fencingToken, signal } = operation;
    const { orderId, amountCents, currency } = payload;
    const headers = {
      ...(key !== undefined && { 'idempotency-key': key }),
      'x-tenant': tenantId,
      'x-attempt': String(attempt),
      'x-fencing-token': String(fencingToken),
      'x-worker': this.settings.workerName,
    };
    return this.gateway.charge({ tenant: tenantId, orderId, amountCents, currency }, headers, signal);
  }

  /** Finds the charge that an earlier attempt may have made under the operation's key. */
  find({ tenantId, idempotencyKey, signal }: CurrentOperation): Promise<Charge | undefined> {
    return this.gateway.findByKey(tenantId, idempotencyKey, signal);
  }

  /** Enqueues the receipt and the shipment, and returns the operation's result. */
  proceed(operation: CurrentOperation, { orderId }: ChargePayload, { chargeId }: Charge): Charge {
    const receipt = { orderId, chargeId };
    operation.enqueue(this.receipts, 'receipt', receipt, { operationKey: receiptKeyOf(orderId) });
    operation.enqueue(this.inventory, 'ship', { orderId }, { operationKey: shipKeyOf(orderId) });
    return { chargeId };
  }
}
