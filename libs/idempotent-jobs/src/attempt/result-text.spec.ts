import { describe, expect, it } from 'vitest';
import { keepResult } from './result-text.js';

const cycle: { self?: unknown } = {};
cycle.self = cycle;

describe('keepResult', () => {
  it.each([
    [{ id: 7 }, '{"id":7}'],
    [null, 'null'],
    [0, '0'],
    ['', '""'],
    [false, 'false'],
  ])('keeps %o, and hands BullMQ the value itself', (value, text) => {
    const kept = keepResult(value);
    expect(kept).toEqual({ text, value, problem: undefined });
    expect(kept.value).toBe(value);
  });

  it('keeps nothing, without a problem, when the handler returned nothing', () => {
    expect(keepResult(undefined)).toEqual({ text: undefined, value: undefined, problem: undefined });
  });

  it.each([
    ['a BigInt', 5n, /^The result cannot be written as JSON/],
    ['a cycle', cycle, /^The result cannot be written as JSON/],
    ['a function', () => 1, /^The result is function/],
    ['a symbol', Symbol('x'), /^The result is symbol/],
    ['a NUL', { note: 'a\0' }, /^The result holds a NUL/],
    ['half of a surrogate pair', ['\ud800'], /^The result holds a NUL character or half/],
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
    expect(keepResult(value)).toEqual({
      text: undefined,
      value: undefined,
      problem: expect.stringMatching(problem),
    });
  });
});
