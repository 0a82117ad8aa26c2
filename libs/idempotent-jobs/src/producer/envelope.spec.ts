import { describe, expect, it } from 'vitest';
import { isEnvelope } from './envelope.js';

const operation = { tenantId: 'acme', operationKey: 'charge:1', fingerprint: 'f' };

describe('isEnvelope', () => {
  it.each([
    ['an operation and its payload', { operation, payload: { amount: 5 } }],
    ['a payload that is null', { operation, payload: null }],
    ['a payload that is undefined', { operation, payload: undefined }],
    ['keys of a later version', { operation: { ...operation, later: true }, payload: 1, later: true }],
    [
      'an operation whose identity is wrong, for identify() to refuse',
      { operation: { fingerprint: 1 }, payload: 1 },
    ],
  ])('knows %s', (_what, data) => {
    expect(isEnvelope(data)).toBe(true);
  });

  it.each([
    ['undefined', undefined],
    ['null', null],
    ['a text', 'operation payload'],
    ['a list', [operation]],
    ['plain data', { amount: 5 }],
    ['an operation without a payload', { operation }],
    ['a payload without an operation', { payload: {} }],
    ['an operation that is null', { operation: null, payload: {} }],
    ['an operation that is a text', { operation: 'charge', payload: {} }],
    ['somebody else’s operation', { operation: { tenantId: 'acme', operationKey: 'k' }, payload: {} }],
  ])('does not take for one: %s', (_what, data) => {
    expect(isEnvelope(data)).toBe(false);
  });
});
