import type { Order } from '../orders/order.entity.js';
import type { OutgoingMail } from './mailer.js';

/** The receipt as a shop of this tenant writes it. */
export function receiptMail(tenantId: string, order: Order, chargeId: string): OutgoingMail {
  const amount = `${(order.amountCents / 100).toFixed(2)} ${order.currency}`;
  return {
    from: `receipts@${tenantId}.test`,
    to: order.customerEmail,
    subject: `Your receipt for order ${order.id}`,
    text: `Thank you for shopping at ${tenantId}.\n\n${order.quantity} x ${order.sku}: ${amount}\nCharge: ${chargeId}\n`,
  };
}
