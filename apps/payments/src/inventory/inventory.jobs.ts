import { IsInt, IsNotEmpty, IsString, Min } from 'class-validator';

export const INVENTORY = 'inventory';

/** Which goods to put aside. */
export class ReservePayload {
  @IsString()
  @IsNotEmpty()
  readonly orderId!: string;

  @IsString()
  @IsNotEmpty()
  readonly sku!: string;

  @IsInt()
  @Min(1)
  readonly quantity!: number;
}

/** The jobs of the queue {@link INVENTORY}. */
export interface InventoryJobs {
  reserve: { payload: ReservePayload; result: { readonly left: number } };
}

/** Names the reservation of an order. */
export function reserveKeyOf(orderId: string): string {
  return `reserve:${orderId}`;
}
