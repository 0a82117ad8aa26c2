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

/** The order whose goods go to the carrier. */
export class ShipPayload {
  @IsString()
  @IsNotEmpty()
  readonly orderId!: string;
}

/** The jobs of the queue {@link INVENTORY}. */
export interface InventoryJobs {
  reserve: { payload: ReservePayload; result: { readonly quantity: number } };
  ship: { payload: ShipPayload; result: { readonly shippedAt: string } };
}

/** The operation key for the reservation of an order. */
export function reserveKeyOf(orderId: string): string {
  return `reserve:${orderId}`;
}

/** The operation key for the shipment of an order. */
export function shipKeyOf(orderId: string): string {
  return `ship:${orderId}`;
}
