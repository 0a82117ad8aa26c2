import { describe, expect, it } from 'vitest';
import { KeylessEncryption } from './keyless-encryption.js';

describe('KeylessEncryption', () => {
  const encrypted = { $encrypted: 1, key: '2026-01', iv: 'a', data: 'b' };

  it.each<[string, unknown, unknown]>([
    ['an encrypted value', encrypted, '(encrypted with key 2026-01)'],
    [
      'one inside of a job that nobody could identify',
      { operation: { tenantId: 'acme' }, payload: encrypted },
      { operation: { tenantId: 'acme' }, payload: '(encrypted with key 2026-01)' },
    ],
    ['one that names no key', { ...encrypted, key: 'a\nb' }, '(encrypted with key unknown)'],
    ['a plain value', { amount: 5 }, { amount: 5 }],
    ['null', null, null],
    ['nothing', undefined, undefined],
  ])('shows %s', (_what, value, shown) => {
    expect(new KeylessEncryption().open(value)).toEqual(shown);
  });
});
