import { describe, expect, it } from 'vitest';
import { KeylessSealer } from './services.js';

describe('KeylessSealer', () => {
  const sealed = { $sealed: 1, key: '2026-01', iv: 'a', data: 'b' };

  it.each<[string, unknown, unknown]>([
    ['an encrypted value', sealed, '(encrypted with key 2026-01)'],
    [
      'one inside of a job that nobody could identify',
      { operation: { tenantId: 'acme' }, payload: sealed },
      { operation: { tenantId: 'acme' }, payload: '(encrypted with key 2026-01)' },
    ],
    ['one that names no key', { ...sealed, key: 'a\nb' }, '(encrypted with key unknown)'],
    ['a plain value', { amount: 5 }, { amount: 5 }],
    ['null', null, null],
    ['nothing', undefined, undefined],
  ])('shows %s', (_what, value, shown) => {
    expect(new KeylessSealer().open(value)).toEqual(shown);
  });
});
