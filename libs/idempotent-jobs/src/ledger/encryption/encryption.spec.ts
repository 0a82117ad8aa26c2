import { createSecretKey, randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { RecordUnreadableError } from '../../operation/errors.js';
import { type Binding, letterBinding, type EncryptedValue, Encryption } from './encryption.js';
import type { KeyRing } from './key-ring.js';

const OLD = randomBytes(32);
const NEW = randomBytes(32);

function ringOf(current: string, keys: Readonly<Record<string, Buffer>>): KeyRing {
  return { current, keys: new Map(Object.entries(keys).map(([id, key]) => [id, createSecretKey(key)])) };
}

const encryption = new Encryption({ encryption: ringOf('old', { old: OLD }) });
const off = new Encryption({});
const here: Binding = { tenantId: 'acme', operationKey: 'charge:1', kind: 'payload' };
const encrypted = (text = '{"card":"4242"}', binding = here): EncryptedValue =>
  JSON.parse(encryption.encrypt(text, binding)) as EncryptedValue;

/** Why a value cannot be read. */
function refusal(value: unknown, binding = here, by = encryption): RecordUnreadableError {
  try {
    by.open(value, binding);
  } catch (error) {
    expect(error).toBeInstanceOf(RecordUnreadableError);
    return error as RecordUnreadableError;
  }
  throw new Error('It was read');
}

/** The same bytes but one bit. */
function flipped(text: string, at: number): string {
  const bytes = Buffer.from(text, 'base64url');
  const index = at < 0 ? bytes.length + at : at;
  bytes.writeUInt8(bytes.readUInt8(index) ^ 1, index);
  return bytes.toString('base64url');
}

describe('Encryption', () => {
  it('opens what it has encrypted, whatever JSON and whatever binding', () => {
    const binding = fc.record({
      tenantId: fc.option(fc.string({ unit: 'grapheme' })),
      operationKey: fc.string({ unit: 'grapheme' }),
      kind: fc.constantFrom('payload' as const, 'result' as const),
    });
    fc.assert(
      fc.property(fc.json({ stringUnit: 'grapheme' }), binding, (text, where) => {
        expect(encryption.openText(encryption.encrypt(text, where), where)).toStrictEqual(JSON.parse(text));
      }),
    );
  });

  it('shows nothing of the content, and nothing twice', () => {
    const texts = [encryption.encrypt('"4242"', here), encryption.encrypt('"4242"', here)];
    expect(texts[0]).not.toContain('4242');
    expect(texts[0]).not.toBe(texts[1]);
    expect(new Set(texts.map((text) => (JSON.parse(text) as EncryptedValue).iv)).size).toBe(2);
  });

  it('without keys lets everything pass as it is, but nothing that is encrypted', () => {
    expect(off.isOn).toBe(false);
    expect(off.encrypt('{"a":1}', here)).toBe('{"a":1}');
    expect(off.openText('{"a":1}', here)).toEqual({ a: 1 });
    expect(refusal(encrypted(), here, off)).toMatchObject({ code: 'RECORD_UNREADABLE', reason: 'no_keys' });
  });

  it.each([null, 0, '', [], {}, { key: 'old', iv: '', data: '' }])(
    'reads what was written before as it is: %o',
    (value) => expect(encryption.open(value, here)).toBe(value),
  );

  it('tells null from nothing', () => {
    expect(encryption.openText('null', here)).toBeNull();
    expect(encryption.openText(null, here)).toBeUndefined();
    expect(encryption.openText(undefined, here)).toBeUndefined();
  });

  it.each<[string, Partial<Binding>]>([
    ['another tenant', { tenantId: 'globex' }],
    ['no tenant', { tenantId: null }],
    ['another operation', { operationKey: 'charge:2' }],
    ['another column', { kind: 'result' }],
  ])('opens nothing that was moved to %s', (_where, elsewhere) => {
    expect(refusal(encrypted(), { ...here, ...elsewhere })).toMatchObject({ reason: 'damaged' });
  });

  it('never opens under another binding', () => {
    const part = fc.string({ maxLength: 3 });
    const where = fc.record({ tenantId: part, operationKey: part, kind: fc.constant('payload' as const) });
    fc.assert(
      fc.property(where, where, (one, other) => {
        fc.pre(JSON.stringify(one) !== JSON.stringify(other));
        expect(refusal(encrypted('1', one), other)).toMatchObject({ reason: 'damaged' });
      }),
    );
  });

  it.each<[string, (value: EncryptedValue) => unknown]>([
    ['the first byte of the ciphertext', (value) => ({ ...value, data: flipped(value.data, 0) })],
    ['the last byte of the ciphertext', (value) => ({ ...value, data: flipped(value.data, -17) })],
    ['the first byte of the tag', (value) => ({ ...value, data: flipped(value.data, -16) })],
    ['the last byte of the tag', (value) => ({ ...value, data: flipped(value.data, -1) })],
    ['the first byte of the IV', (value) => ({ ...value, iv: flipped(value.iv, 0) })],
    ['the last byte of the IV', (value) => ({ ...value, iv: flipped(value.iv, -1) })],
    ['a shorter tag', (value) => ({ ...value, data: value.data.slice(0, -4) })],
    ['nothing but a tag', (value) => ({ ...value, data: value.data.slice(0, 8) })],
    ['a longer IV', (value) => ({ ...value, iv: `${value.iv}AAAA` })],
    ['the form of the base64', (value) => ({ ...value, data: `${value.data}=` })],
    ['the version', (value) => ({ ...value, $encrypted: 2 })],
    ['a property that is gone', ({ iv: _iv, ...value }) => value],
    ['a property of another type', (value) => ({ ...value, data: 7 })],
    ['everything', () => ({ $encrypted: 1, key: 'old' })],
  ])('refuses what was changed: %s', (_what, change) => {
    expect(refusal(change(encrypted()))).toMatchObject({ reason: 'damaged', data: { keyId: 'old' } });
  });

  it('refuses any single byte that differs', () => {
    const value = encrypted();
    const length = Buffer.from(value.data, 'base64url').length;
    fc.assert(
      fc.property(fc.integer({ min: 0, max: length - 1 }), (at) => {
        expect(refusal({ ...value, data: flipped(value.data, at) }).reason).toBe('damaged');
      }),
    );
  });

  it('refuses a key id that was changed to another key with the same bytes', () => {
    const twins = new Encryption({ encryption: ringOf('old', { old: OLD, twin: OLD }) });
    expect(refusal({ ...encrypted(), key: 'twin' }, here, twins)).toMatchObject({ reason: 'damaged' });
  });

  describe('when keys are rotated', () => {
    const rotated = new Encryption({ encryption: ringOf('new', { old: OLD, new: NEW }) });

    it('reads all keys, and writes the current one', () => {
      expect(rotated.open(encrypted(), here)).toEqual({ card: '4242' });
      expect(JSON.parse(rotated.encrypt('1', here))).toMatchObject({ key: 'new' });
    });

    it('says which key is missing, where, and what to do, and nothing of the content', () => {
      const value: unknown = JSON.parse(rotated.encrypt('"4242"', here));
      const { message, reason, data } = refusal(value);
      expect(reason).toBe('unknown_key');
      expect(data).toMatchObject({ keyId: 'new', ...here });
      expect(message).toBe(
        'The payload of operation "charge:1" of tenant "acme" is encrypted with key "new", which is not configured here. Add it to forRoot({ encryption: { keys } }).',
      );
    });

    it('refuses a key of the same id with other bytes', () => {
      expect(
        refusal(encrypted(), here, new Encryption({ encryption: ringOf('old', { old: NEW }) })).reason,
      ).toBe('damaged');
    });
  });

  it.each(['', 'a b', 'x'.repeat(33), 7, undefined])('does not quote what is no key id: %o', (key) => {
    const { message, reason } = refusal({ ...encrypted(), key });
    expect(reason).toBe('damaged');
    expect(message).toContain('a key it does not name');
  });

  it('binds a letter like its operation, and one without an operation to its job', () => {
    const job = { queue: 'charges', jobId: '7' };
    expect(letterBinding({ ...job, tenantId: 'acme', operationKey: 'charge:1' })).toEqual(here);
    const nobody = { tenantId: null, operationKey: 'charges:7', kind: 'payload' };
    expect(letterBinding({ ...job, tenantId: null, operationKey: null })).toEqual(nobody);
    expect(letterBinding(job)).toEqual(nobody);
  });
});
