import { PermanentError } from 'nestjs-idempotent-jobs';
import type { EntityManager } from 'typeorm';
import { Product } from './product.entity.js';
import { Reservation, type ReservationStatus } from './reservation.entity.js';

/** Goods for an order of a tenant. */
interface Take {
  readonly tenantId: string;
  readonly orderId: string;
  readonly sku: string;
  readonly quantity: number;
}

/**
 * Puts goods aside, unless they already are; returns the current status of the reservation.
 *
 * @throws PermanentError if there are not enough
 */
export async function reserve(transaction: EntityManager, take: Take): Promise<ReservationStatus> {
  const { tenantId, orderId, sku, quantity } = take;
  const inserted = await transaction
    .createQueryBuilder()
    .insert()
    .into(Reservation)
    .values({ tenantId, orderId, sku, quantity })
    .orIgnore()
    .returning('order_id')
    .execute();
  if ((inserted.raw as unknown[]).length === 0) return statusOf(transaction, tenantId, orderId);
  // One statement checks and takes: of two orders for the last piece, the second waits on the row and finds none.
  const [rows] = await transaction.query<[unknown[], number]>(
    `UPDATE products SET available = available - $3
     WHERE tenant_id = $1 AND sku = $2 AND available >= $3
     RETURNING available`,
    [tenantId, sku, quantity],
  );
  // The error rolls back the reservation, too.
  if (rows.length === 0) throw new PermanentError(`Not enough of ${sku} in stock: ${quantity} wanted`);
  return 'reserved';
}

/**
 * Ships what was reserved for an order. Returns when it was shipped; a repeated call returns the same time.
 *
 * @throws PermanentError if nothing is reserved for the order, or the reservation has been released
 */
export async function ship(transaction: EntityManager, tenantId: string, orderId: string): Promise<Date> {
  const [rows] = await transaction.query<[{ shipped_at: Date }[], number]>(
    `UPDATE reservations SET status = 'shipped', shipped_at = coalesce(shipped_at, clock_timestamp())
     WHERE tenant_id = $1 AND order_id = $2 AND status IN ('reserved', 'shipped')
     RETURNING shipped_at`,
    [tenantId, orderId],
  );
  const [shipped] = rows;
  if (shipped !== undefined) return shipped.shipped_at;
  const status = await statusOf(transaction, tenantId, orderId);
  throw new PermanentError(`The goods of order ${orderId} cannot be shipped: they are ${status}`);
}

async function statusOf(
  transaction: EntityManager,
  tenantId: string,
  orderId: string,
): Promise<ReservationStatus> {
  const reservation = await transaction.findOneBy(Reservation, { tenantId, orderId });
  if (reservation === null) throw new PermanentError(`Nothing is reserved for order ${orderId}`);
  return reservation.status;
}

/** Sets price and stock of a tenant's products, and adds those that are missing. */
export async function stockUp(
  manager: EntityManager,
  tenantId: string,
  products: readonly Omit<Product, 'tenantId'>[],
): Promise<void> {
  await manager.upsert(
    Product,
    products.map((product) => ({ ...product, tenantId })),
    ['tenantId', 'sku'],
  );
}
