import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { InvalidPayloadError } from './errors.js';
import type { OperationIdentity } from './identity.js';
import { canonicalRequest, fingerprintOf, payloadTextOf, toJsonText } from './json.js';

function refusal(value: unknown): InvalidPayloadError {
  try {
    toJsonText('payload', value);
  } catch (error) {
    expect(error).toBeInstanceOf(InvalidPayloadError);
    return error as InvalidPayloadError;
  }
  throw new Error('The value was not refused');
}

const cycle: Record<string, unknown> = {};
cycle['self'] = { cycle };

describe('toJsonText', () => {
  it.each([
    [{ amount: 5, note: null }, '{"amount":5,"note":null}'],
    [[1, 'two', false], '[1,"two",false]'],
    ['text', '"text"'],
    [null, 'null'],
    [0, '0'],
    [{ when: new Date(0), gone: undefined }, '{"when":"1970-01-01T00:00:00.000Z"}'],
  ])('writes %o', (value, text) => {
    expect(toJsonText('payload', value)).toBe(text);
  });

  it.each([
    ['a BigInt', { amount: 5n }],
    ['a cycle', cycle],
    [
      'a toJSON that throws',
      {
        toJSON() {
          throw new Error('not today');
        },
      },
    ],
  ])('refuses %s and says that JSON is the reason', (_what, value) => {
    const error = refusal(value);
    expect(error.message).toMatch(/^The payload cannot be written as JSON: ./);
    expect(error.cause).toBeInstanceOf(Error);
  });

  it.each([
    ['undefined', undefined],
    ['function', () => 1],
    ['symbol', Symbol('x')],
  ])('refuses %s, which would be lost without a word', (type, value) => {
    expect(refusal(value).message).toBe(`The payload is ${type}, which JSON cannot express. Pass an object.`);
  });

  it.each([
    ['a NUL in a value', { note: 'a\0b' }],
    ['a NUL in a key', { 'a\0b': 1 }],
    ['a NUL after a backslash', { note: '\\\0' }],
    ['a NUL after two backslashes', { note: '\\\\\0' }],
    ['a high surrogate alone', { note: 'a\ud800' }],
    ['a low surrogate alone', { note: '\udfffa' }],
    ['a pair the wrong way round', { note: '\udc00\ud83d' }],
    ['half a pair after a backslash', { note: '\\\udabc' }],
    ['half a pair in a key', { '\ud83d': 1 }],
    ['half a pair deep inside', { lines: [{ names: ['ok', '\udead'] }] }],
  ])('refuses %s, which Postgres cannot store, and tells how to get around it', (_what, value) => {
    expect(refusal(value).message).toMatch(/Postgres cannot store.*base64/);
  });

  it.each([
    ['the six characters of an escaped NUL', { note: String.raw`\u0000` }],
    ['the six characters after another backslash', { note: String.raw`\\u0000` }],
    ['the six characters of an escaped surrogate', { note: String.raw`\ud800` }],
    ['such text as a key', { [String.raw`\udfff`]: 1 }],
    ['u0000 without a backslash', { note: 'u0000' }],
    ['a whole pair', { note: '🚀' }],
    ['other control characters', { note: '\u0001\u001f\u007f\n' }],
  ])('lets pass %s', (_what, value) => {
    expect(JSON.parse(toJsonText('payload', value))).toEqual(value);
  });

  it('names what it was given', () => {
    expect(() => toJsonText('result', undefined)).toThrow(/^The result is undefined/);
  });

  it('never repeats the value in an error', () => {
    expect(refusal({ note: 's3cret\0' }).message).not.toContain('s3cret');
  });

  it('refuses exactly the texts with a NUL or half of a surrogate pair, whatever surrounds those', () => {
    const tricky = fc.string({
      unit: fc.constantFrom('\\', 'u', '0', 'd', '8', '"', '\0', '\ud83d', '\ude80'),
    });
    fc.assert(
      fc.property(tricky, fc.boolean(), (text, isKey) => {
        const write = (): string => toJsonText('payload', isKey ? { [text]: 1 } : [text]);
        if (text.isWellFormed() && !text.includes('\0')) expect(write).not.toThrow();
        else expect(write).toThrow(InvalidPayloadError);
      }),
      { numRuns: 500 },
    );
  });
});

const acme = { tenantId: 'acme', operationKey: 'charge:1' };

function fingerprint(identity: OperationIdentity, jobName: string, payload: unknown): string {
  return fingerprintOf(canonicalRequest(identity, jobName, payload));
}

/** The same JSON value with the keys of every object in reverse order. */
function reordered(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(reordered);
  if (value === null || typeof value !== 'object') return value;
  const entries = Object.entries(value).map(([key, inner]) => [key, reordered(inner)] as const);
  return Object.fromEntries(entries.toReversed());
}

/** What is left of a value on its way through JSON: no negative zero, for example. */
function stored(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value));
}

describe('the fingerprint of a request', () => {
  it('stays what it has always been, since rows of earlier versions hold it', () => {
    // printf '["acme","charge",{"amount":5,"currency":"EUR","lines":[{"a":1,"b":2}]}]' | sha256sum
    const payload = { lines: [{ b: 2, a: 1 }], currency: 'EUR', amount: 5 };
    expect(fingerprint(acme, 'charge', payload)).toBe(
      '13b335a7c1fae71c62b469541fe800a8e57cccab19cd04c3edff3caf18ae3051',
    );
  });

  it('does not depend on the order of keys at any depth, nor on a round trip through JSON', () => {
    fc.assert(
      fc.property(fc.jsonValue({ maxDepth: 5 }), (payload) => {
        expect(fingerprint(acme, 'charge', stored(reordered(payload)))).toBe(
          fingerprint(acme, 'charge', payload),
        );
      }),
    );
  });

  it('differs wherever payloads differ as JSON', () => {
    fc.assert(
      fc.property(fc.jsonValue(), fc.jsonValue(), (one, other) => {
        fc.pre(!isDeepStrictEqual(stored(one), stored(other)));
        expect(fingerprint(acme, 'charge', one)).not.toBe(fingerprint(acme, 'charge', other));
      }),
    );
  });

  it.each([
    ['another tenant', fingerprint({ ...acme, tenantId: 'globex' }, 'charge', { amount: 5 })],
    ['another job name', fingerprint(acme, 'refund', { amount: 5 })],
    ['another value', fingerprint(acme, 'charge', { amount: 6 })],
    ['another type', fingerprint(acme, 'charge', { amount: '5' })],
    ['another key', fingerprint(acme, 'charge', { sum: 5 })],
    ['one key more', fingerprint(acme, 'charge', { amount: 5, note: null })],
    ['tenant and name swapped', fingerprint({ ...acme, tenantId: 'charge' }, 'acme', { amount: 5 })],
  ])('differs for %s', (_what, other) => {
    expect(other).not.toBe(fingerprint(acme, 'charge', { amount: 5 }));
  });

  it('differs for another order of list elements', () => {
    expect(fingerprint(acme, 'charge', [1, 2])).not.toBe(fingerprint(acme, 'charge', [2, 1]));
  });

  it('does not depend on the operation key, so that two requests under one key can be told apart by it', () => {
    expect(fingerprint({ ...acme, operationKey: 'charge:2' }, 'charge', { amount: 5 })).toBe(
      fingerprint(acme, 'charge', { amount: 5 }),
    );
  });

  it('counts an own "__proto__" key like any other', () => {
    const withProto = JSON.parse('{"amount":5,"__proto__":{"isAdmin":true}}') as unknown;
    expect(fingerprint(acme, 'charge', withProto)).not.toBe(fingerprint(acme, 'charge', { amount: 5 }));
  });

  it.each([NaN, Infinity, -Infinity])('refuses %d, which JSON cannot express', (amount) => {
    expect(() => fingerprint(acme, 'charge', { amount })).toThrow(/not allowed/);
  });
});

describe('payloadTextOf', () => {
  it('gives back the payload that the request was made with', () => {
    fc.assert(
      fc.property(fc.jsonValue(), (payload) => {
        expect(JSON.parse(payloadTextOf(canonicalRequest(acme, 'charge', payload)))).toEqual(stored(payload));
      }),
    );
  });

  it('gives it back unchanged when the payload was changed meanwhile', () => {
    const payload = { amount: 5 };
    const canonical = canonicalRequest(acme, 'charge', payload);
    payload.amount = 6;
    expect(payloadTextOf(canonical)).toBe('{"amount":5}');
  });

  it('gives back null for no payload', () => {
    expect(payloadTextOf(canonicalRequest(acme, 'charge', undefined))).toBe('null');
  });
});
