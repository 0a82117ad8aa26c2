import { IsNotEmpty, IsString } from 'class-validator';

export const RECEIPTS = 'receipts';

/** The order and its charge. */
export class ReceiptPayload {
  @IsString()
  @IsNotEmpty()
  readonly orderId!: string;

  @IsString()
  @IsNotEmpty()
  readonly chargeId!: string;
}

/** The jobs of the queue {@link RECEIPTS}. */
export interface ReceiptJobs {
  receipt: { payload: ReceiptPayload; result: { readonly messageId: string } };
}

/** The operation key for the receipt of an order. */
export function receiptKeyOf(orderId: string): string {
  return `receipt:${orderId}`;
}
