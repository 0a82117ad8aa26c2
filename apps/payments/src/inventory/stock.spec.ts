import { type LocalPostgres, startPostgres } from 'local-servers';
import { PermanentError } from 'nestjs-idempotent-jobs';
import { DataSource } from 'typeorm';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { migrate } from '../database/migrate.js';
import { TABLES } from '../database/tables.js';
import { Order } from '../orders/order.entity.js';
import { Product } from './product.entity.js';
import { Reservation } from './reservation.entity.js';
import { reserve, ship, stockUp } from './stock.js';

const TENANT = 'acme';

let postgres: LocalPostgres;
let source: DataSource;
let orders = 0;

beforeAll(async () => {
  postgres = await startPostgres();
  const url = await postgres.createDatabase('stock');
  await migrate(url);
  source = await new DataSource({ type: 'postgres', url, entities: TABLES }).initialize();
  await stockUp(source.manager, TENANT, [{ sku: 'cup', unitPriceCents: 1, currency: 'EUR', available: 10 }]);
}, 60_000);

afterAll(async () => {
  await source?.destroy();
  await postgres?.stop();
}, 60_000);

/** Stores an order of two cups, and answers with its id. */
async function order(): Promise<string> {
  const id = `order-${(orders += 1)}`;
  const customer = { customerEmail: 'ada@acme.test', amountCents: 2, currency: 'EUR' };
  await source.manager.insert(Order, { tenantId: TENANT, id, sku: 'cup', quantity: 2, ...customer });
  return id;
}

/** As the library does it: what throws leaves nothing behind. */
const reserved = (orderId: string, quantity = 2): Promise<string> =>
  source.transaction((manager) => reserve(manager, { tenantId: TENANT, orderId, sku: 'cup', quantity }));

const shipped = (orderId: string): Promise<Date> =>
  source.transaction((manager) => ship(manager, TENANT, orderId));

async function available(): Promise<number> {
  return (await source.manager.findOneByOrFail(Product, { tenantId: TENANT, sku: 'cup' })).available;
}

describe('an order’s goods', () => {
  it('are taken from stock once, however often they are reserved', async () => {
    const before = await available();
    const id = await order();

    expect([await reserved(id), await reserved(id)]).toEqual(['reserved', 'reserved']);
    expect(await available()).toBe(before - 2);
  });

  it('are not reserved at all when there are not enough', async () => {
    const id = await order();

    await expect(reserved(id, 1000)).rejects.toThrow(PermanentError);
    expect(await source.manager.countBy(Reservation, { tenantId: TENANT, orderId: id })).toBe(0);
  });

  it('are shipped once: again gives the same answer, and reserving them again says what became of them', async () => {
    const id = await order();
    await reserved(id);
    const before = await available();

    const first = await shipped(id);

    expect(await shipped(id)).toEqual(first);
    expect(await reserved(id)).toBe('shipped');
    expect(await available()).toBe(before);
  });

  it('cannot be shipped when they were released or never reserved', async () => {
    const id = await order();
    await expect(shipped(id)).rejects.toThrow(PermanentError);
    await reserved(id);
    await source.manager.update(Reservation, { tenantId: TENANT, orderId: id }, { status: 'released' });

    await expect(shipped(id)).rejects.toThrow('they are released');
  });
});
