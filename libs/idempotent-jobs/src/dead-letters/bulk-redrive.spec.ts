import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { DEFAULT_PACE, nextStep, type RedrivePace, type RedriveProgress } from './bulk-redrive.js';

function progress(over: Partial<RedriveProgress>): RedriveProgress {
  return { left: 20, redriven: 0, underWay: 0, failed: 0, ...over };
}

describe('nextStep', () => {
  it.each<[string, Partial<RedriveProgress>, number, object]>([
    ['begins with the canaries, though the rate allows more', {}, 100, { kind: 'redrive', letters: 5 }],
    ['begins with as many canaries as the rate allows', {}, 2, { kind: 'redrive', letters: 2 }],
    [
      'goes on with the canaries that are missing',
      { redriven: 2, underWay: 2 },
      10,
      { kind: 'redrive', letters: 3 },
    ],
    ['waits while the rate allows not one letter', {}, 0.9, { kind: 'wait' }],
    ['waits while a canary is under way', { redriven: 5, underWay: 1 }, 10, { kind: 'wait' }],
    ['follows the canaries once all have ended', { redriven: 5 }, 10, { kind: 'redrive', letters: 10 }],
    ['takes no more than are left', { left: 3, redriven: 5 }, 10, { kind: 'redrive', letters: 3 }],
    [
      'goes on though later ones are under way',
      { redriven: 15, underWay: 10 },
      4,
      { kind: 'redrive', letters: 4 },
    ],
    ['bears one of five canaries failing', { redriven: 5, failed: 1 }, 10, { kind: 'redrive', letters: 10 }],
    ['stops when two of five have failed', { redriven: 5, failed: 2 }, 10, { kind: 'stop' }],
    [
      'stops before all canaries have ended, when enough have',
      { redriven: 8, underWay: 2, failed: 2 },
      10,
      { kind: 'stop' },
    ],
    ['does not stop for the first failure', { redriven: 1, failed: 1 }, 1, { kind: 'redrive', letters: 1 }],
    ['is complete when no letter is left', { left: 0, redriven: 20, underWay: 20 }, 10, { kind: 'complete' }],
    [
      'is complete, not stopped, when all have failed and none is left',
      { left: 0, redriven: 20, failed: 20 },
      0,
      { kind: 'complete' },
    ],
  ])('%s', (_title, over, allowance, step) => {
    expect(nextStep(progress(over), DEFAULT_PACE, allowance)).toMatchObject(step);
  });

  it('without canaries it begins with what the rate allows', () => {
    const pace: RedrivePace = { ...DEFAULT_PACE, canary: 0 };
    expect(nextStep(progress({}), pace, 10)).toEqual({ kind: 'redrive', letters: 10 });
  });

  it('tells why it stops', () => {
    expect(nextStep(progress({ redriven: 10, failed: 3 }), DEFAULT_PACE, 1)).toEqual({
      kind: 'stop',
      because: '3 of 10 redriven operations failed again (30 %, more than 20 %)',
    });
  });

  const pace = fc.record({
    ratePerSecond: fc.constant(10),
    canary: fc.nat({ max: 8 }),
    maxFailureShare: fc.float({ min: 0, max: Math.fround(0.9), noNaN: true }),
  });

  it('never takes more than are left or than the rate allows, and never more canaries than told before they end', () => {
    fc.assert(
      fc.property(
        pace,
        fc.nat(30),
        fc.nat(30),
        fc.nat(30),
        fc.float({ min: 0, max: 20, noNaN: true }),
        (how, left, redriven, underWay, allowance) => {
          const state = { left, redriven, underWay: Math.min(underWay, redriven), failed: 0 };
          const step = nextStep(state, how, allowance);
          if (step.kind !== 'redrive') return;
          expect(step.letters).toBeGreaterThan(0);
          expect(step.letters).toBeLessThanOrEqual(Math.min(left, allowance));
          if (redriven - state.underWay < how.canary) {
            expect(redriven + step.letters).toBeLessThanOrEqual(Math.max(how.canary, 1));
          }
        },
      ),
    );
  });

  it('always ends, whatever fails, when operations end and time passes', () => {
    fc.assert(
      fc.property(
        pace,
        fc.nat(40),
        fc.array(fc.boolean(), { minLength: 40, maxLength: 40 }),
        (how, letters, fails) => {
          const state = { left: letters, redriven: 0, underWay: 0, failed: 0 };
          for (let turn = 0; turn < 200; turn += 1) {
            const step = nextStep(state, how, 3);
            if (step.kind === 'complete' || step.kind === 'stop') return;
            if (step.kind === 'redrive') {
              state.left -= step.letters;
              state.redriven += step.letters;
              state.underWay += step.letters;
            }
            if (state.underWay > 0) {
              state.underWay -= 1;
              if (fails[state.redriven % fails.length]) state.failed += 1;
            }
          }
          throw new Error(`not ended: ${JSON.stringify(state)}`);
        },
      ),
    );
  });
});
