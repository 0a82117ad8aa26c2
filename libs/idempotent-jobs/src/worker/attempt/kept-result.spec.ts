import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { ResultRules } from '../../ledger/record/recorded-result.js';
import { keepResult } from './kept-result.js';

const RULES: ResultRules = { isStored: true, redact: undefined, maxBytes: 1000 };
const cycle: { self?: unknown } = {};
cycle.self = cycle;

class Money {
  readonly #secret = 1;
  constructor(readonly cents: number) {}
  get doubled(): number {
    return this.cents * 2 * this.#secret;
  }
}

class Receipt {
  readonly id = 'r-1';
  toJSON(): unknown {
    return { receipt: this.id };
  }
}

/** What a replay is answered with. */
const replayed = (text: string | undefined): unknown => (text === undefined ? undefined : JSON.parse(text));

describe('keepResult', () => {
  it.each<[what: string, returned: unknown, given: unknown]>([
    ['nothing', undefined, undefined],
    ['null', null, null],
    ['a text', '', ''],
    ['a truth value', false, false],
    ['a number', 0.1, 0.1],
    ['minus zero', -0, 0],
    ['no number', NaN, null],
    ['infinity', -Infinity, null],
    ['a date', new Date(0), '1970-01-01T00:00:00.000Z'],
    ['an invalid date', new Date(NaN), null],
    ['a property that is undefined', { id: 7, note: undefined }, { id: 7 }],
    ['a property that is a function', { id: 7, act: () => 1 }, { id: 7 }],
    ['an item that is undefined', [undefined, 1], [null, 1]],
    ['a number inside that is none', { rate: NaN }, { rate: null }],
    ['an instance', new Money(5), { cents: 5 }],
    ['an instance with toJSON', new Receipt(), { receipt: 'r-1' }],
    ['a Map', new Map([[1, 2]]), {}],
    ['a Set', { ids: new Set([1]) }, { ids: {} }],
    ['bytes', Buffer.from('a'), { type: 'Buffer', data: [97] }],
  ])('gives the first run what a replay will read: %s', (_what, returned, given) => {
    const kept = keepResult(returned, RULES);
    expect(kept).toStrictEqual({ text: kept.text, value: given, omitted: undefined, problem: undefined });
    expect(replayed(kept.text)).toStrictEqual(given);
  });

  it('gives no instance away that the handler may still change', () => {
    const returned = { lines: [1] };
    const { value } = keepResult(returned, RULES);
    returned.lines.push(2);
    expect(value).toEqual({ lines: [1] });
  });

  it.each([
    ['a BigInt', 5n, /^The result cannot be written as JSON/],
    ['a cycle', cycle, /^The result cannot be written as JSON/],
    ['a function', () => 1, /^The result is function/],
    ['a symbol', Symbol('x'), /^The result is symbol/],
    ['a NUL', { note: 'a\0' }, /^The result holds a NUL/],
    ['half of a surrogate pair', ['\ud800'], /^The result holds a NUL character or half/],
    ['what would be taken for encrypted', { $encrypted: 1 }, /^The result has a property "\$encrypted"/],
    [
      'a toJSON that throws nothing at all',
      {
        toJSON() {
          throw undefined;
        },
      },
      /./,
    ],
  ])('completes without a result that cannot be kept, and says why: %s', (_what, value, problem) => {
    expect(keepResult(value, RULES)).toEqual({
      text: undefined,
      value: undefined,
      omitted: 'not_json',
      problem: expect.stringMatching(problem),
    });
  });

  it('the first run and every replay are given the same, whatever the handler returned', () => {
    const anything = fc.anything({
      withBigInt: true,
      withDate: true,
      withMap: true,
      withSet: true,
      withTypedArray: true,
      withSparseArray: true,
      withNullPrototype: true,
      stringUnit: 'binary',
    });
    fc.assert(
      fc.property(anything, (returned) => {
        const kept = keepResult(returned, { ...RULES, maxBytes: 100 });
        expect(replayed(kept.text)).toStrictEqual(kept.value);
        expect(kept.omitted === undefined).toBe(kept.problem === undefined);
        if (kept.omitted !== undefined) expect(kept.text).toBeUndefined();
      }),
    );
  });

  describe('with a limit', () => {
    it.each([
      ['ASCII', 'a'.repeat(8)],
      ['two bytes a character', 'é'.repeat(4)],
      ['four bytes a character', '😀😀'],
    ])('counts bytes of UTF-8, quotes included: %s', (_what, text) => {
      expect(keepResult(text, { ...RULES, maxBytes: 10 }).value).toBe(text);
      expect(keepResult(text, { ...RULES, maxBytes: 9 })).toEqual({
        text: undefined,
        value: undefined,
        omitted: 'too_large',
        problem:
          'The result has 10 bytes as JSON; at most 9 are kept. Return a reference to it, or raise forRoot({ results: { maxBytes } }).',
      });
    });
  });

  describe('with storeResult: false', () => {
    const rules = { ...RULES, isStored: false };

    it('keeps and gives nothing, and calls that no problem', () => {
      const calls: unknown[] = [];
      expect(keepResult({ id: 7 }, { ...rules, redact: (result) => calls.push(result) })).toEqual({
        text: undefined,
        value: undefined,
        omitted: 'not_stored',
        problem: undefined,
      });
      expect(calls).toEqual([]);
    });

    it('leaves nothing out where the handler returned nothing', () => {
      expect(keepResult(undefined, rules)).toMatchObject({ omitted: undefined });
    });
  });

  describe('with redact', () => {
    const redacting = (redact: (result: any) => unknown) =>
      keepResult({ card: '4242', id: 7 }, { ...RULES, redact });

    it('keeps and gives what it returns', () => {
      expect(redacting(({ id }) => ({ id }))).toMatchObject({ text: '{"id":7}', value: { id: 7 } });
      expect(redacting(() => undefined)).toEqual(keepResult(undefined, RULES));
    });

    it('is not asked about nothing', () => {
      const fail = (): never => {
        throw new Error('asked');
      };
      expect(keepResult(undefined, { ...RULES, redact: fail })).toMatchObject({ omitted: undefined });
    });

    it.each<[string, () => unknown, RegExp]>([
      [
        'an error',
        () => {
          throw new RangeError('card 4242');
        },
        /^redact\(\) threw RangeError; /,
      ],
      [
        'what is no error',
        () => {
          throw '4242';
        },
        /^redact\(\) threw string; /,
      ],
      ['a promise', () => Promise.reject(new Error('4242')), /^redact\(\) returned a promise/],
    ])('keeps nothing when it fails, and quotes nothing: %s', (_what, redact, problem) => {
      const kept = redacting(redact);
      expect(kept).toMatchObject({ text: undefined, value: undefined, omitted: 'redact_failed' });
      expect(kept.problem).toMatch(problem);
      expect(kept.problem).not.toContain('4242');
    });

    it('measures what it returns', () => {
      const rules = { ...RULES, maxBytes: 10 };
      expect(keepResult('a'.repeat(99), { ...rules, redact: () => 'short' }).value).toBe('short');
      expect(keepResult('a', { ...rules, redact: () => 'a'.repeat(99) }).omitted).toBe('too_large');
    });
  });
});
