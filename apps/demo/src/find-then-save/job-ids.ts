import type { OrderJob } from '../plain/order-job.js';

/** The same for an order that is placed twice, so that BullMQ takes it once. */
export function chargeJobIdOf({ tenantId, orderId }: OrderJob): string {
  return `charge-${tenantId}-${orderId}`;
}

export function receiptJobIdOf({ tenantId, orderId }: OrderJob): string {
  return `receipt-${tenantId}-${orderId}`;
}
