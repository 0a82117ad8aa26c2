import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { backoffMs, type BackoffOptions, type Jitter } from './backoff.js';

/** The largest number that Math.random() can give. */
const LARGEST = 1 - 2 ** -53;

const JITTERS: readonly Jitter[] = ['full', 'equal', 'decorrelated'];

const half = (): number => 0.5;
const smallest = (): number => 0;
const largest = (): number => LARGEST;
const nearlyOne = (): number => 1 - 1e-9;

const jitter = fc.constantFrom(...JITTERS);
const options = fc.record(
  {
    baseMs: fc.double({ min: 0.001, max: 1e7, noNaN: true }),
    capMs: fc.double({ min: 0.001, max: 1e9, noNaN: true }),
    jitter,
    throttledBaseMs: fc.double({ min: 0.001, max: 1e7, noNaN: true }),
  },
  { requiredKeys: ['baseMs', 'capMs'] },
);
const failures = fc.oneof(fc.integer({ min: 1, max: 60 }), fc.integer({ min: 1, max: 2_000_000 }));
const facts = fc.record({
  failures,
  previousMs: fc.option(fc.double({ min: 0, max: 1e9, noNaN: true }), { nil: undefined }),
  isThrottled: fc.boolean(),
});
const random = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });

function after(count: number, limits: BackoffOptions, draw: () => number, previousMs?: number): number {
  return backoffMs({ failures: count, previousMs, isThrottled: false }, limits, draw);
}

/** The base doubled once for each failure after the first, but no more than the cap. */
function boundOf(count: number, baseMs: number, capMs: number): number {
  let bound = baseMs;
  for (let failure = 2; failure <= count && bound < capMs; failure += 1) bound += bound;
  return Math.min(bound, capMs);
}

describe('backoffMs: full jitter', () => {
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
      expect(after(count, { baseMs: 1_000, capMs: 300_000 }, half)).toBe(ms);
    },
  );

  it('may not wait at all', () => {
    expect(after(7, { baseMs: 1_000, capMs: 300_000 }, smallest)).toBe(0);
  });

  it('stays under a cap that is smaller than the base', () => {
    expect(after(1, { baseMs: 1_000, capMs: 10 }, largest)).toBe(9);
  });

  it('reaches its bound with the largest random number, whatever the base', () => {
    fc.assert(
      fc.property(failures, fc.integer({ min: 1, max: 1_000_000 }), (count, baseMs) => {
        expect(after(count, { baseMs, capMs: baseMs }, largest)).toBe(baseMs - 1);
      }),
    );
  });
});

describe('backoffMs: equal jitter', () => {
  it.each([
    [1, 500, 750, 999],
    [3, 2_000, 3_000, 3_999],
    [10, 150_000, 225_000, 299_999],
  ])(
    'waits the lower half of the bound and a part of the upper after failure %i',
    (count, least, middle, most) => {
      const limits = { baseMs: 1_000, capMs: 300_000, jitter: 'equal' } as const;
      expect([smallest, half, nearlyOne].map((draw) => after(count, limits, draw))).toEqual([
        least,
        middle,
        most,
      ]);
    },
  );

  it('stays between half of the bound and the bound', () => {
    fc.assert(
      fc.property(failures, options, random, (count, limits, drawn) => {
        const bound = boundOf(count, limits.baseMs, limits.capMs);
        const ms = after(count, { ...limits, jitter: 'equal' }, () => drawn);
        expect(ms).toBeGreaterThanOrEqual(Math.floor(bound / 2));
        expect(ms).toBeLessThanOrEqual(bound);
      }),
    );
  });
});

describe('backoffMs: decorrelated jitter', () => {
  const limits = { baseMs: 1_000, capMs: 300_000, jitter: 'decorrelated' } as const;

  it.each([
    ['there was none', undefined, 1_000, 2_000],
    ['it was the base', 1_000, 1_000, 2_000],
    ['it was longer', 4_000, 1_000, 6_500],
    ['it was near the cap', 290_000, 1_000, 300_000],
    ['it was nothing', 0, 1_000, 1_000],
    ['it was less than a third of the base', 300, 1_000, 1_000],
  ])('waits between the base and three times the last wait when %s', (_which, previousMs, least, middle) => {
    expect(after(1, limits, smallest, previousMs)).toBe(least);
    expect(after(1, limits, half, previousMs)).toBe(Math.min(middle, 300_000));
  });

  it('does not count failures', () => {
    fc.assert(
      fc.property(failures, failures, facts, random, (one, other, { previousMs }, drawn) => {
        const draw = (): number => drawn;
        expect(after(one, limits, draw, previousMs)).toBe(after(other, limits, draw, previousMs));
      }),
    );
  });

  it('stays between the base and three times the last wait, and under the cap', () => {
    fc.assert(
      fc.property(options, facts, random, ({ baseMs, capMs }, { previousMs }, drawn) => {
        const ms = after(1, { baseMs, capMs, jitter: 'decorrelated' }, () => drawn, previousMs);
        expect(ms).toBeGreaterThanOrEqual(Math.floor(Math.min(baseMs, capMs)));
        expect(ms).toBeLessThanOrEqual(Math.max(baseMs, 3 * (previousMs ?? baseMs)));
      }),
    );
  });
});

describe('backoffMs: a service that asks for less', () => {
  const throttled = (limits: BackoffOptions, jitterOf: Jitter = 'full', count = 1): number =>
    backoffMs({ failures: count, isThrottled: true }, { ...limits, jitter: jitterOf }, nearlyOne);

  it.each<[string, number, number | undefined, number]>([
    ['five times the base when nothing else was said', 1_000, undefined, 4_999],
    ['the base that was asked for', 1_000, 7_000, 6_999],
    ['never less than the ordinary base', 9_000, 7_000, 8_999],
  ])('is left alone for %s', (_what, baseMs, throttledBaseMs, ms) => {
    const limits = { baseMs, capMs: 300_000, ...(throttledBaseMs !== undefined && { throttledBaseMs }) };
    expect(throttled(limits)).toBe(ms);
    expect(throttled(limits, 'equal')).toBe(ms);
    expect(throttled(limits, 'full', 3)).toBe((ms + 1) * 4 - 1);
  });

  it('is left alone no longer than the cap', () => {
    expect(throttled({ baseMs: 10, capMs: 20 }, 'equal')).toBe(19);
    expect(throttled({ baseMs: 10, capMs: 20 }, 'decorrelated')).toBe(20);
  });

  it('is never asked again sooner than one that only failed, given the same random number', () => {
    fc.assert(
      fc.property(facts, options, random, (seen, limits, drawn) => {
        const [slow, quick] = [true, false].map((isThrottled) =>
          backoffMs({ ...seen, isThrottled }, limits, () => drawn),
        ) as [number, number];
        expect(slow).toBeGreaterThanOrEqual(quick);
      }),
    );
  });
});

describe('backoffMs: any jitter', () => {
  it('gives whole milliseconds from 0 up to, but not above, the cap, after any number of failures', () => {
    fc.assert(
      fc.property(facts, options, random, (seen, limits, drawn) => {
        const ms = backoffMs(seen, limits, () => drawn);
        expect(Number.isSafeInteger(ms)).toBe(true);
        expect(ms).toBeGreaterThanOrEqual(0);
        expect(ms).toBeLessThanOrEqual(limits.capMs);
      }),
    );
  });

  it('never waits longer than the base doubled once for each failure after the first, unless it does not count them', () => {
    fc.assert(
      fc.property(failures, options, random, (count, limits, drawn) => {
        fc.pre(limits.jitter !== 'decorrelated');
        expect(after(count, limits, () => drawn)).toBeLessThanOrEqual(
          boundOf(count, limits.baseMs, limits.capMs),
        );
      }),
    );
  });

  it('never waits less after more failures, given the same random number', () => {
    fc.assert(
      fc.property(failures, failures, options, random, (one, other, limits, drawn) => {
        const [fewer, more] = one < other ? [one, other] : [other, one];
        expect(after(fewer, limits, () => drawn)).toBeLessThanOrEqual(after(more, limits, () => drawn));
      }),
    );
  });

  it('never waits less after a longer wait, given the same random number', () => {
    fc.assert(
      fc.property(facts, facts, options, random, (one, other, limits, drawn) => {
        const [a, b] = [one.previousMs ?? 0, other.previousMs ?? 0];
        expect(after(3, limits, () => drawn, Math.min(a, b))).toBeLessThanOrEqual(
          after(3, limits, () => drawn, Math.max(a, b)),
        );
      }),
    );
  });
});
