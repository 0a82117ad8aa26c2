import { createSecretKey } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { Signer, type SignedClaims } from './signer.js';

const key = (byte: number) => createSecretKey(Buffer.alloc(32, byte));
const signerOf = (keys: Record<string, number>, current: string, acceptUnsignedUntil = -Infinity): Signer =>
  new Signer({
    signing: {
      ring: { keys: new Map(Object.entries(keys).map(([id, byte]) => [id, key(byte)])), current },
      acceptUnsignedUntil,
    },
  });

const claims: SignedClaims = {
  queue: 'charges',
  jobName: 'charge',
  fingerprint: 'f'.repeat(64),
  operation: { tenantId: 'acme', operationKey: 'charge:1', deadlineAt: '2026-01-01T00:00:00.000Z', row: 5 },
};
const signer = signerOf({ a: 1 }, 'a');
const signature = signer.sign(claims, 17);

describe('Signer', () => {
  it('accepts what it has signed, also after a rotation', () => {
    expect(signer.verify(signature, claims)).toBe('accepted');
    expect(signerOf({ b: 2, a: 1 }, 'b').verify(signature, claims)).toBe('accepted');
    expect(signerOf({ b: 2, a: 1 }, 'b').sign(claims, 17)).toMatchObject({ key: 'b', at: 17 });
  });

  it.each<[string, Partial<SignedClaims>]>([
    ['queue', { queue: 'refunds' }],
    ['job name', { jobName: 'refund' }],
    ['fingerprint', { fingerprint: 'e'.repeat(64) }],
    ['tenant', { operation: { ...claims.operation, tenantId: 'globex' } }],
    ['key', { operation: { ...claims.operation, operationKey: 'charge:2' } }],
    [
      'tenant and key, cut elsewhere',
      { operation: { ...claims.operation, tenantId: 'acmec', operationKey: 'harge:1' } },
    ],
    ['deadline', { operation: { tenantId: 'acme', operationKey: 'charge:1', row: 5 } }],
    ['row', { operation: { ...claims.operation, row: 6 } }],
    ['retry policy', { operation: { ...claims.operation, retryPolicy: 'patient' } }],
    ['mark of a schedule', { operation: { ...claims.operation, isSchedule: true } }],
  ])('refuses another %s', (_title, other) => {
    expect(signer.verify(signature, { ...claims, ...other })).toBe('forged');
  });

  it.each([
    ['another time', { ...signature, at: 18 }],
    ['another key of the same name', signerOf({ a: 2 }, 'a').sign(claims, 17)],
    ['an unknown key', { ...signature, key: 'b' }],
    ['the name of something every object has', { ...signature, key: '__proto__' }],
    ['another algorithm', { ...signature, alg: 'none' }],
    ['no mac', { ...signature, mac: '' }],
    ['half a mac', { ...signature, mac: signature?.mac.slice(0, 20) }],
    ['a mac that is no text', { ...signature, mac: { length: 43 } }],
    ['null', null],
    ['a text', 'signed'],
  ])('refuses a signature with %s', (_title, forged) => {
    expect(signer.verify(forged, claims)).toBe('forged');
  });

  it('accepts no signature until its date, and a forged one at no time', () => {
    const open = signerOf({ a: 1 }, 'a', Infinity);
    expect(open.verify(undefined, claims)).toBe('accepted');
    expect(open.verify({ ...signature, at: 18 }, claims)).toBe('forged');
    expect(signer.verify(undefined, claims)).toBe('unsigned');
    expect([open.acceptsUnsigned(5), signerOf({ a: 1 }, 'a', 5).acceptsUnsigned(5)]).toEqual([true, false]);
  });

  it('without keys signs nothing and accepts everything', () => {
    const off = new Signer({ signing: undefined });
    expect(off.sign(claims, 17)).toBeUndefined();
    expect(off.verify('anything', claims)).toBe('accepted');
  });
});
