import { describe, expect, it } from 'vitest';
import { orderStream } from './order-stream.js';

describe('orderStream', () => {
  it('is the same for the same seed, and another one for another', () => {
    expect(orderStream(7, 300)).toEqual(orderStream(7, 300));
    expect(orderStream(7, 300)).not.toEqual(orderStream(8, 300));
  });

  it('places every order, about a tenth of them a second time, never before the first', () => {
    const { orders, sequence } = orderStream(1, 1000);

    expect([...new Set(sequence)]).toEqual(orders);
    expect(sequence.length - orders.length).toBeGreaterThan(70);
    expect(sequence.length - orders.length).toBeLessThan(130);
  });

  it('interleaves five tenants, whose customers have their own addresses', () => {
    const { orders } = orderStream(1, 300);

    expect(new Set(orders.slice(0, 30).map(({ tenantId }) => tenantId)).size).toBe(5);
    for (const { tenantId, customerEmail } of orders) expect(customerEmail).toContain(`@${tenantId}.test`);
  });
});
