import type { JobsOptions } from 'bullmq';

export const CHARGES = 'charges';
export const RECEIPTS = 'receipts';

/** Asks for an order's charge. */
export interface OrderJob {
  readonly tenantId: string;
  readonly orderId: string;
}

/** Asks for an order's receipt. */
export interface ReceiptJob extends OrderJob {
  readonly chargeId: string;
}

/** As many attempts as (c) and (d) have, with the same first pause. */
export const RETRIES: JobsOptions = {
  attempts: 8,
  backoff: { type: 'exponential', delay: 200, jitter: 0.5 },
};
