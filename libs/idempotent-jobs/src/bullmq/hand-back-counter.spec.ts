import { describe, expect, it } from 'vitest';
import { HandBackCounter } from './hand-back.js';

const operation = (operationKey: string) => ({ tenantId: 'acme', operationKey });

describe('HandBackCounter', () => {
  it('counts each operation by itself, until it gets on', () => {
    const counter = new HandBackCounter();
    expect([1, 2, 3].map(() => counter.count(operation('charge:1')))).toEqual([1, 2, 3]);
    expect(counter.count(operation('charge:2'))).toBe(1);
    counter.forget(operation('charge:1'));
    expect(counter.count(operation('charge:1'))).toBe(1);
    expect(counter.count(operation('charge:2'))).toBe(2);
  });

  it('keeps tenants apart', () => {
    const counter = new HandBackCounter();
    counter.count(operation('charge:1'));
    expect(counter.count({ tenantId: 'globex', operationKey: 'charge:1' })).toBe(1);
  });

  it('forgets those that were handed back the longest ago, once there are too many', () => {
    const counter = new HandBackCounter();
    counter.count(operation('first'));
    counter.count(operation('second'));
    counter.count(operation('first'));
    for (let number = 0; number < 9_999; number += 1) counter.count(operation(`charge:${number}`));
    expect(counter.count(operation('first'))).toBe(3);
    expect(counter.count(operation('second'))).toBe(1);
  });
});
