import { Injectable } from '@nestjs/common';
import { InjectRepository } from '@nestjs/typeorm';
import type { CurrentOperation } from 'nestjs-idempotent-jobs';
import { Repository } from 'typeorm';
import { Order } from '../orders/order.entity.js';
import { Settings } from '../settings.js';
import { Mailer } from './mailer.js';
import type { ReceiptPayload } from './receipt.jobs.js';
import { receiptMail } from './receipt-mail.js';

/**
 * The Message-ID of an operation's mail, without the angle brackets. It is the same on every attempt, so that the mailbox
 * shows whether the mail has arrived.
 */
export function messageIdOf({ idempotencyKey, tenantId }: CurrentOperation): string {
  return `${idempotencyKey}@${tenantId}.test`;
}

/** The part that every receipt processor shares. */
@Injectable()
export class OrderReceipt {
  constructor(
    private readonly mailer: Mailer,
    private readonly settings: Settings,
    @InjectRepository(Order) private readonly orders: Repository<Order>,
  ) {}

  /** Mails the receipt and returns the operation's result. */
  async send(operation: CurrentOperation, payload: ReceiptPayload): Promise<{ messageId: string }> {
    const { tenantId, operationKey, attempt, fencingToken } = operation;
    const order = await this.orders.findOneByOrFail({ tenantId, id: payload.orderId });
    const messageId = messageIdOf(operation);
    await this.mailer.send({
      ...receiptMail(tenantId, order, payload.chargeId),
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
