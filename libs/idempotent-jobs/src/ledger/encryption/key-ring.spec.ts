import { inspect } from 'node:util';
import { describe, expect, it } from 'vitest';
import { optionChecks } from '../../option-checks/option-checks.js';
import { type EncryptionOptions, type KeyRing, readKeyRing } from './key-ring.js';

function read(options: unknown): { ring: KeyRing | undefined; problem: string | undefined } {
  const checks = optionChecks('forRoot()');
  const ring = readKeyRing(checks, options as EncryptionOptions | undefined);
  try {
    checks.throwIfAny((message) => new Error(message));
    return { ring, problem: undefined };
  } catch (error) {
    return { ring, problem: (error as Error).message };
  }
}

const bytes = Buffer.alloc(32, 0xab);
const base64 = bytes.toString('base64');

describe('readKeyRing', () => {
  it('has no keys where there are none', () => {
    expect(read(undefined)).toEqual({ ring: undefined, problem: undefined });
  });

  it.each([
    ['a Buffer', bytes],
    ['bytes', new Uint8Array(bytes)],
    ['base64', base64],
    ['base64url', bytes.toString('base64url')],
  ])('reads 32 bytes from %s', (_form, key) => {
    const { ring, problem } = read({ keys: { '2026-01': key }, current: '2026-01' });
    expect(problem).toBeUndefined();
    expect(ring?.keys.get('2026-01')?.export()).toEqual(bytes);
  });

  it('keeps its own copy, which shows no bytes', () => {
    const given = Buffer.from(bytes);
    const { ring } = read({ keys: { a: given }, current: 'a' });
    given.fill(0);
    expect(ring?.keys.get('a')?.export()).toEqual(bytes);
    expect(inspect(ring, { depth: 9 })).not.toMatch(/ab ab|q6ur/);
  });

  it.each<[string, unknown, RegExp]>([
    ['null', null, /encryption\.keys must be an object of at least one key/],
    ['no keys', { current: 'a' }, /encryption\.keys must be an object of at least one key/],
    ['an empty object', { keys: {}, current: 'a' }, /encryption\.keys must be an object/],
    [
      'too few bytes',
      { keys: { a: bytes.subarray(1) }, current: 'a' },
      /key "a" has 31 bytes, but must have 32/,
    ],
    ['too many', { keys: { a: `${base64.slice(0, 43)}AAAAA` }, current: 'a' }, /key "a" has 36 bytes/],
    ['a passphrase', { keys: { a: 'correct horse!' }, current: 'a' }, /key "a" is neither bytes nor base64/],
    ['a number', { keys: { a: 7 }, current: 'a' }, /key "a" is neither bytes nor base64/],
    ['an empty id', { keys: { '': bytes }, current: '' }, /the id of key number 1 must have 1 to 32 letters/],
    ['an odd id', { keys: { 'a b': bytes }, current: 'a b' }, /the id of key number 1 must have 1 to 32/],
    ['an unknown current', { keys: { a: bytes }, current: 'b' }, /current is "b", but must be the id of one/],
    ['no current', { keys: { a: bytes } }, /encryption\.current must be the id of one/],
    ['an inherited current', { keys: { a: bytes }, current: 'toString' }, /current is "toString", but must/],
  ])('refuses %s', (_what, options, problem) => {
    expect(read(options).problem).toMatch(problem);
  });

  it('quotes no key, wherever it was put', () => {
    for (const key of [base64, bytes.toString('base64url'), bytes.toString('hex'), 'correct horse!']) {
      for (const options of [
        { keys: { [key]: '2026-01' }, current: key },
        { keys: { a: `${key}${key}` }, current: 'a' },
        { keys: { a: bytes }, current: key },
      ]) {
        const { problem } = read(options);
        expect(problem).toBeDefined();
        expect(problem).not.toContain(key);
      }
    }
  });
});
