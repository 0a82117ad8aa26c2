/**
 * What the customers do: the same for the same seed, whatever becomes of it. Tenants are interleaved, and about every
 * tenth order is placed a second time a little later: a double click, or a client that got no answer.
 */
import type { Order } from 'payments';
import { seededRandom } from './seeded-random.js';

/** An order as its customer places it, and what it will cost. */
export type PlacedOrder = Omit<Order, 'createdAt'>;

export const TENANTS = ['acme', 'globex', 'hooli', 'initech', 'umbrella'];

/** The same on every tenant's shelves, and enough of each for any stream. */
export const PRODUCTS = [
  { sku: 'teapot', unitPriceCents: 1999, currency: 'EUR', available: 1_000_000 },
  { sku: 'kettle', unitPriceCents: 3450, currency: 'EUR', available: 1_000_000 },
  { sku: 'cup', unitPriceCents: 499, currency: 'EUR', available: 1_000_000 },
];

const SHARE_PLACED_TWICE = 0.1;
/** So many orders later the second one comes, at most. */
const SECOND_WITHIN = 20;

/** The orders, and the sequence in which they are placed, some of them twice. */
export interface OrderStream {
  readonly orders: readonly PlacedOrder[];
  readonly sequence: readonly PlacedOrder[];
}

export function orderStream(seed: number, count: number): OrderStream {
  const random = seededRandom(seed);
  const orders = Array.from({ length: count }, (_, index) => orderOf(index + 1, random));
  const sequence: PlacedOrder[] = [];
  const again = new Map<number, PlacedOrder[]>();
  for (const [index, order] of orders.entries()) {
    sequence.push(order, ...(again.get(index) ?? []));
    if (random() >= SHARE_PLACED_TWICE) continue;
    const later = Math.min(count - 1, index + 1 + Math.floor(random() * SECOND_WITHIN));
    if (later === index) sequence.push(order);
    else again.set(later, [...(again.get(later) ?? []), order]);
  }
  return { orders, sequence };
}

function orderOf(number: number, random: () => number): PlacedOrder {
  const tenantId = oneOf(TENANTS, random);
  const { sku, unitPriceCents, currency } = oneOf(PRODUCTS, random);
  const quantity = 1 + Math.floor(random() * 3);
  return {
    tenantId,
    id: `order-${String(number).padStart(4, '0')}`,
    sku,
    quantity,
    customerEmail: `customer-${1 + Math.floor(random() * 40)}@${tenantId}.test`,
    amountCents: unitPriceCents * quantity,
    currency,
  };
}

function oneOf<T>(choices: readonly T[], random: () => number): T {
  return choices[Math.floor(random() * choices.length)] as T;
}
