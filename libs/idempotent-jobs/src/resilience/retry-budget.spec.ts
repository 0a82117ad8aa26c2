import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { RetryBudget } from './retry-budget.js';

/** As many retries as the budget grants before it denies one. */
function drain(budget: RetryBudget): number {
  let granted = 0;
  while (budget.tryWithdraw()) granted += 1;
  return granted;
}

/** A seeded source of numbers in [0, 1): mulberry32. */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

describe('RetryBudget', () => {
  it.each([
    [0, 10],
    [9, 10],
    [10, 11],
    [100, 20],
    [1_000, 110],
  ])('grants its floor and a tenth of the first tries: after %i first tries %i retries', (tries, retries) => {
    const budget = new RetryBudget({ now: () => 0 });
    for (let made = 0; made < tries; made += 1) budget.deposit();
    expect(drain(budget)).toBe(retries);
  });

  it.each([
    [{ ratio: 0, minPerSecond: 0 }, 0],
    [{ ratio: 0.5, minPerSecond: 0 }, 50],
    [{ ratio: 0, minPerSecond: 2 }, 20],
    [{ ratio: 0, minPerSecond: 2, windowMs: 500 }, 1],
    [{ ratio: 1, minPerSecond: 0.5 }, 105],
  ])('goes by its options: %o grants %i retries after 100 first tries', (options, retries) => {
    const budget = new RetryBudget({ ...options, now: () => 0 });
    for (let made = 0; made < 100; made += 1) budget.deposit();
    expect(drain(budget)).toBe(retries);
  });

  it.each([
    [10_000, 0, 0],
    [10_999, 0, 0],
    [11_000, 100, 10],
  ])('%i ms later it has forgotten %i first tries and what was withdrawn', (laterMs, tries, retries) => {
    let nowMs = 0;
    const budget = new RetryBudget({ now: () => nowMs });
    for (let made = 0; made < 100; made += 1) budget.deposit();
    expect(drain(budget)).toBe(20);
    nowMs = laterMs;
    expect(drain(budget)).toBe(tries === 0 ? 0 : retries);
  });

  it('takes the clock of the process when none was given', () => {
    expect(drain(new RetryBudget())).toBe(10);
  });
});

describe('RetryBudget: the bound', () => {
  const step = fc.record({
    gapMs: fc.oneof(fc.integer({ min: 0, max: 20 }), fc.integer({ min: 0, max: 3_000 }), fc.constant(9_001)),
    tries: fc.nat({ max: 30 }),
    asks: fc.nat({ max: 30 }),
  });
  const options = fc.record({
    ratio: fc.constantFrom(0, 0.05, 0.1, 0.3, 1),
    minPerSecond: fc.constantFrom(0, 0.5, 1, 3),
  });

  /** When first tries were made and when retries were granted. */
  function run(
    settings: { ratio: number; minPerSecond: number },
    steps: readonly { gapMs: number; tries: number; asks: number }[],
  ): { tries: number[]; retries: number[] } {
    let nowMs = 333;
    const budget = new RetryBudget({ ...settings, now: () => nowMs });
    const tries: number[] = [];
    const retries: number[] = [];
    for (const { gapMs, tries: made, asks } of steps) {
      nowMs += gapMs;
      for (let one = 0; one < made; one += 1) {
        budget.deposit();
        tries.push(nowMs);
      }
      for (let one = 0; one < asks; one += 1) if (budget.tryWithdraw()) retries.push(nowMs);
    }
    return { tries, retries };
  }

  const within = (times: readonly number[], afterMs: number, untilMs: number): number =>
    times.filter((time) => time > afterMs && time <= untilMs).length;

  it('holds for the 10 s before each retry that is granted, against the first tries of the 11 s before it', () => {
    fc.assert(
      fc.property(options, fc.array(step, { maxLength: 40 }), (settings, steps) => {
        const { tries, retries } = run(settings, steps);
        for (const at of retries) {
          const allowed = settings.ratio * within(tries, at - 11_000, at) + 10 * settings.minPerSecond;
          expect(within(retries, at - 10_000, at)).toBeLessThanOrEqual(allowed + 1e-9);
        }
      }),
    );
  });

  it('holds for a window of 10 s at any place, against the first tries of the 21 s before its end', () => {
    fc.assert(
      fc.property(
        options,
        fc.array(step, { maxLength: 40 }),
        fc.integer({ min: 0, max: 60_000 }),
        (settings, steps, endMs) => {
          const { tries, retries } = run(settings, steps);
          const allowed = settings.ratio * within(tries, endMs - 21_000, endMs) + 10 * settings.minPerSecond;
          expect(within(retries, endMs - 10_000, endMs)).toBeLessThanOrEqual(allowed + 1e-9);
        },
      ),
    );
  });

  it('denies no retry that the last 11 s have room for', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 20 }), (steps) => {
        let nowMs = 0;
        const budget = new RetryBudget({ now: () => nowMs });
        const tries: number[] = [];
        const retries: number[] = [];
        for (const { gapMs, tries: made } of steps) {
          nowMs += gapMs;
          for (let one = 0; one < made; one += 1) budget.deposit();
          tries.push(...Array.from({ length: made }, () => nowMs));
          const room = 0.1 * within(tries, nowMs - 10_000, nowMs) + 10;
          const isRoom = within(retries, nowMs - 11_000, nowMs) + 1 <= room;
          const isGranted = budget.tryWithdraw();
          if (isGranted) retries.push(nowMs);
          expect(isGranted || !isRoom).toBe(true);
        }
      }),
    );
  });
});

describe('RetryBudget: simulated', () => {
  /** Retries as a share of first tries over two minutes: 1,000 first tries a second, each tried up to ten times. */
  function share(failing: number, grants: (budget: RetryBudget) => boolean): number {
    const random = seeded(20_240_229);
    let nowMs = 0;
    const budget = new RetryBudget({ now: () => nowMs });
    let retries = 0;
    for (nowMs = 0; nowMs < 120_000; nowMs += 1) {
      budget.deposit();
      for (let attempt = 1; attempt < 10 && random() < failing; attempt += 1) {
        if (!grants(budget)) break;
        retries += 1;
      }
    }
    return retries / 120_000;
  }

  it.each([
    [0.05, 0.052, 0.052],
    [0.3, 0.429, 0.101],
    [1, 9, 0.101],
  ])(
    'at %d failing, the share of retries would be %d without a budget and is %d with it',
    (failing, without, budgeted) => {
      expect(share(failing, () => true)).toBeCloseTo(without, 2);
      const measured = share(failing, (budget) => budget.tryWithdraw());
      expect(Math.abs(measured - budgeted)).toBeLessThan(0.001);
    },
  );
});
