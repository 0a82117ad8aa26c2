import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { DEFAULT_SCHEDULE, nextQuestionMs, type ReconcileSchedule } from './reconcile.options.js';

/** The times of all questions, each unanswered and asked the moment it is due. */
function questions(plan: ReconcileSchedule): number[] {
  const asked: number[] = [];
  let ageMs = 0;
  for (;;) {
    const waitMs = nextQuestionMs(plan, ageMs);
    if (waitMs === undefined) return asked;
    ageMs += waitMs;
    asked.push(ageMs);
  }
}

describe('the plan of questions', () => {
  it('asks after 5 s, 15 s, 1 min, 5 min, 30 min, then hourly to 24 h, and then no more', () => {
    const seconds = questions(DEFAULT_SCHEDULE).map((ms) => ms / 1000);
    expect(seconds.slice(0, 7)).toEqual([5, 15, 60, 300, 1800, 5400, 9000]);
    expect(seconds.at(-1)).toBe(86_400);
    expect(seconds).toHaveLength(29);
  });

  it('is over when it ends, however late the last question came', () => {
    expect(nextQuestionMs(DEFAULT_SCHEDULE, 86_400_000)).toBeUndefined();
    expect(nextQuestionMs(DEFAULT_SCHEDULE, 86_399_999)).toBe(1);
  });

  it('asks at the end of the late-arrival window, if that is before the next planned time', () => {
    expect(questions({ ...DEFAULT_SCHEDULE, lateArrivalMs: 20_000 }).slice(0, 4)).toEqual([
      5000, 15_000, 20_000, 60_000,
    ]);
    expect(questions({ ...DEFAULT_SCHEDULE, lateArrivalMs: 15_000 }).slice(0, 3)).toEqual([
      5000, 15_000, 60_000,
    ]);
  });

  it('waits a whole number of milliseconds of at least 1, and never beyond its end', () => {
    const plans = fc.record({
      afterMs: fc
        .uniqueArray(fc.integer({ min: 1, max: 10_000 }), { maxLength: 6 })
        .map((list) => list.toSorted((one, other) => one - other)),
      thenEveryMs: fc.integer({ min: 1, max: 10_000 }),
      untilMs: fc.integer({ min: 1, max: 100_000 }),
      lateArrivalMs: fc.integer({ min: 0, max: 100_000 }),
    });
    fc.assert(
      fc.property(plans, fc.double({ min: 0, max: 99_999, noNaN: true }), (plan, ageMs) => {
        const waitMs = nextQuestionMs(plan, ageMs);
        if (ageMs >= plan.untilMs) return waitMs === undefined;
        return (
          Number.isInteger(waitMs) &&
          (waitMs as number) >= 1 &&
          ageMs + (waitMs as number) <= plan.untilMs + 1
        );
      }),
    );
  });
});
