import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Bulkhead } from './bulkhead.js';

describe('Bulkhead', () => {
  it('has room for as many as it was made for, and turns the next away at once', () => {
    const bulkhead = new Bulkhead(2);
    expect(bulkhead.tryAcquire()).toBeTypeOf('function');
    expect(bulkhead.tryAcquire()).toBeTypeOf('function');
    expect(bulkhead.tryAcquire()).toBeUndefined();
    expect(bulkhead.active).toBe(2);
  });

  it('has room again when one of them is through', () => {
    const bulkhead = new Bulkhead(1);
    bulkhead.tryAcquire()?.();
    expect(bulkhead.active).toBe(0);
    expect(bulkhead.tryAcquire()).toBeTypeOf('function');
  });

  it('takes a place back only once, so that nobody frees the place of somebody else', () => {
    const bulkhead = new Bulkhead(1);
    const release = bulkhead.tryAcquire();
    release?.();
    bulkhead.tryAcquire();
    release?.();
    expect(bulkhead.active).toBe(1);
    expect(bulkhead.tryAcquire()).toBeUndefined();
  });

  it('counts exactly those that have not given their place back, whoever does so how often', () => {
    const actions = fc.array(fc.oneof(fc.constant('enter' as const), fc.nat({ max: 20 })));
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 5 }), actions, (maxConcurrent, steps) => {
        const bulkhead = new Bulkhead(maxConcurrent);
        const places: { release: () => void; isHeld: boolean }[] = [];
        for (const step of steps) {
          const held = places.filter(({ isHeld }) => isHeld).length;
          expect(bulkhead.active).toBe(held);
          if (step === 'enter') {
            const release = bulkhead.tryAcquire();
            expect(release !== undefined).toBe(held < maxConcurrent);
            if (release !== undefined) places.push({ release, isHeld: true });
          } else if (places[step] !== undefined) {
            places[step].release();
            places[step].isHeld = false;
          }
        }
      }),
    );
  });
});
