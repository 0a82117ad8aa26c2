import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { fullJitterMs } from './backoff.js';

/** The largest number that Math.random() can give. */
const LARGEST = 1 - 2 ** -53;

const options = fc.record({
  baseMs: fc.double({ min: 0.001, max: 1e7, noNaN: true }),
  capMs: fc.double({ min: 0.001, max: 1e9, noNaN: true }),
});
const failures = fc.oneof(fc.integer({ min: 1, max: 60 }), fc.integer({ min: 1, max: 2_000_000 }));
const random = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });

describe('fullJitterMs', () => {
  it.each([
    [1, 500],
    [2, 1_000],
    [3, 2_000],
    [4, 4_000],
    [8, 64_000],
    [9, 128_000],
    [10, 150_000],
    [11, 150_000],
    [2_000, 150_000],
  ])(
    'waits half of the doubling bound after failure %i when the random number is a half: %i ms',
    (count, ms) => {
      expect(fullJitterMs(count, { baseMs: 1_000, capMs: 300_000 }, () => 0.5)).toBe(ms);
    },
  );

  it('may not wait at all, because the jitter is full', () => {
    expect(fullJitterMs(7, { baseMs: 1_000, capMs: 300_000 }, () => 0)).toBe(0);
  });

  it('stays under a cap that is smaller than the base', () => {
    expect(fullJitterMs(1, { baseMs: 1_000, capMs: 10 }, () => LARGEST)).toBe(9);
  });

  it('gives whole milliseconds from 0 up to, but not above, the cap, after any number of failures', () => {
    fc.assert(
      fc.property(failures, options, random, (count, limits, drawn) => {
        const ms = fullJitterMs(count, limits, () => drawn);
        expect(Number.isSafeInteger(ms)).toBe(true);
        expect(ms).toBeGreaterThanOrEqual(0);
        expect(ms).toBeLessThanOrEqual(limits.capMs);
      }),
    );
  });

  it('never waits longer than the base doubled once for each failure after the first', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 40 }), options, random, (count, limits, drawn) => {
        let bound = limits.baseMs;
        for (let failure = 2; failure <= count; failure += 1) bound += bound;
        expect(fullJitterMs(count, limits, () => drawn)).toBeLessThanOrEqual(bound);
      }),
    );
  });

  it('reaches its bound with the largest random number, whatever the base', () => {
    fc.assert(
      fc.property(failures, fc.integer({ min: 1, max: 1_000_000 }), (count, baseMs) => {
        expect(fullJitterMs(count, { baseMs, capMs: baseMs }, () => LARGEST)).toBe(baseMs - 1);
      }),
    );
  });

  it('never waits less after more failures, given the same random number', () => {
    fc.assert(
      fc.property(failures, failures, options, random, (one, other, limits, drawn) => {
        const [fewer, more] = one < other ? [one, other] : [other, one];
        expect(fullJitterMs(fewer, limits, () => drawn)).toBeLessThanOrEqual(
          fullJitterMs(more, limits, () => drawn),
        );
      }),
    );
  });
});
