import { IsInt, IsISO4217CurrencyCode, IsNotEmpty, IsString, Min } from 'class-validator';

export const CHARGES = 'charges';

/** The order and the amount to charge. */
export class ChargePayload {
  @IsString()
  @IsNotEmpty()
  readonly orderId!: string;

  @IsInt()
  @Min(1)
  readonly amountCents!: number;

  @IsISO4217CurrencyCode()
  readonly currency!: string;
}

/** The jobs of the queue {@link CHARGES}. */
export interface ChargeJobs {
  charge: { payload: ChargePayload; result: { readonly chargeId: string } };
}

/** The operation key for the charge of an order. Charging it again on purpose would need another key. */
export function chargeKeyOf(orderId: string): string {
  return `charge:${orderId}`;
}
