import { PermanentError } from 'nestjs-idempotent-jobs';
import type { EntityManager } from 'typeorm';
import { Product } from './product.entity.js';
import { Reservation } from './reservation.entity.js';

/** Goods for an order of a tenant. */
interface Take {
  readonly tenantId: string;
  readonly orderId: string;
  readonly sku: string;
  readonly quantity: number;
}

/**
 * Puts goods aside and returns how many are left. Not safe to repeat by itself: the caller's transaction makes it so.
 *
 * @throws PermanentError if there are not enough
 */
export async function takeFromStock(transaction: EntityManager, take: Take): Promise<number> {
  const { tenantId, orderId, sku, quantity } = take;
  // One statement looks and takes: two orders for the last piece meet on the row, and the second finds none.
  const [rows] = await transaction.query<[{ available: number }[], number]>(
    `UPDATE products SET available = available - $3
     WHERE tenant_id = $1 AND sku = $2 AND available >= $3
     RETURNING available`,
    [tenantId, sku, quantity],
  );
  const [product] = rows;
  if (product === undefined) throw new PermanentError(`Not enough of ${sku} in stock: ${quantity} wanted`);
  await transaction.insert(Reservation, { tenantId, orderId, sku, quantity });
  return product.available;
}

/** Puts products on a tenant's shelves: sets price and stock of those that are there already. */
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
