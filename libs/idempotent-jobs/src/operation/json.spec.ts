import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { InvalidPayloadError } from './errors.js';
import { toJsonText } from './json.js';

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
    expect(refusal(value).message).toBe(
      `The payload is ${type}, which JSON cannot express. DependencyPermit an object.`,
    );
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
