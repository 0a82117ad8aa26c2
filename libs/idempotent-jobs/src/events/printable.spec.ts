import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { printable, printableJson } from './printable.js';

const shown = (point: number, escape: string): [string, string] => [String.fromCodePoint(point), escape];

/** One of each kind that is not to reach a terminal. */
const UNSEEN = [
  shown(0x0a, '\\n'),
  shown(0x09, '\\t'),
  shown(0x00, '\\u0000'),
  shown(0x1b, '\\u001b'),
  shown(0x7f, '\\u007f'),
  shown(0x9b, '\\u009b'),
  shown(0xad, '\\u00ad'),
  shown(0x34f, '\\u034f'),
  shown(0x200b, '\\u200b'),
  shown(0x202e, '\\u202e'),
  shown(0x2028, '\\u2028'),
  shown(0x2029, '\\u2029'),
  shown(0x2066, '\\u2066'),
  shown(0x3164, '\\u3164'),
  shown(0xfe0f, '\\ufe0f'),
  shown(0xfeff, '\\ufeff'),
  shown(0xe0041, '\\udb40\\udc41'),
  shown(0xd800, '\\ud800'),
];

describe('printable', () => {
  it.each(UNSEEN)('shows %j as its escape', (unseen, escape) => {
    expect(printable(`a${unseen}b`)).toBe(`a${escape}b`);
    expect(printableJson({ a: unseen })).toBe(`{\n  "a": "${escape}"\n}`);
  });

  it('leaves alone what can be seen, of any script', () => {
    const text = 'Zahlung abgelehnt – "naïve" \\ 支付失败 دفع 😀 é';
    expect(printable(text)).toBe(text);
  });

  it('never changes what JSON says', () => {
    fc.assert(
      fc.property(fc.json({ stringUnit: 'binary' }), (json) => {
        const value = JSON.parse(json) as unknown;
        expect(JSON.parse(printableJson(value))).toEqual(value);
      }),
    );
  });

  it('has nothing more to do a second time, and makes no second line', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => {
        const once = printable(text);
        expect(printable(once)).toBe(once);
        expect(once).not.toMatch(/[\n\r\u2028\u2029]/);
      }),
    );
  });
});
