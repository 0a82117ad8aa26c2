import { describe, expect, it } from 'vitest';
import { chunksOf } from './chunks.js';

const MEBI = 1024 * 1024;
const of = (...lengths: number[]): { payload: string }[] =>
  lengths.map((length) => ({ payload: 'x'.repeat(length) }));
const sizes = (requests: Iterable<{ payload: string }>): number[][] =>
  [...chunksOf(requests)].map((chunk) => chunk.map(({ payload }) => payload.length));

describe('chunksOf', () => {
  it.each([
    ['nothing', [], []],
    ['a few small ones', [1, 2, 3], [[1, 2, 3]]],
    ['an empty payload', [0], [[0]]],
    ['four mebicharacters, which are allowed', [2 * MEBI, 2 * MEBI], [[2 * MEBI, 2 * MEBI]]],
    ['one character more, which is not', [2 * MEBI, 2 * MEBI, 1], [[2 * MEBI, 2 * MEBI], [1]]],
    ['one that is larger than a chunk, first', [5 * MEBI, 1], [[5 * MEBI], [1]]],
    ['one that is larger than a chunk, last', [1, 5 * MEBI], [[1], [5 * MEBI]]],
  ])('groups %s', (_what, lengths, expected) => {
    expect(sizes(of(...lengths))).toEqual(expected);
  });

  it('ends a chunk after a thousand requests', () => {
    const requests = of(...Array.from({ length: 2001 }, () => 1));
    expect([...chunksOf(requests)].map((chunk) => chunk.length)).toEqual([1000, 1000, 1]);
  });

  it('takes requests only as chunks are asked for', () => {
    let taken = 0;
    const requests = (function* () {
      for (;;) {
        taken += 1;
        yield { payload: 'x' };
      }
    })();
    const chunks = chunksOf(requests);
    chunks.next();
    expect(taken).toBe(1001);
  });
});
