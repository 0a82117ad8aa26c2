import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { RollingWindow } from './rolling-window.js';

describe('RollingWindow', () => {
  it('is empty at first', () => {
    expect(new RollingWindow(12, 5_000).totals(123_456)).toEqual({ first: 0, second: 0 });
  });

  it('sums both counters apart', () => {
    const window = new RollingWindow(12, 5_000);
    window.add(1_000, 1, 0);
    window.add(1_000, 2, 5);
    window.add(9_000, 4, 1);
    expect(window.totals(9_000)).toEqual({ first: 7, second: 6 });
  });

  it.each([
    ['a moment later', 0, 1],
    ['when its own bucket is all that is left of the window', 59_999, 1],
    ['when its bucket is due again', 60_000, 0],
    ['after an idle hour', 3_600_000, 0],
    ['after an idle century', 3_155_760_000_000, 0],
  ])('remembers a count of the beginning of a bucket %s: %i ms: %i', (_when, nowMs, first) => {
    const window = new RollingWindow(12, 5_000);
    window.add(0, 1, 0);
    expect(window.totals(nowMs).first).toBe(first);
  });

  it('counts in the last bucket what comes with a time before it', () => {
    const window = new RollingWindow(3, 10);
    window.add(100, 1, 0);
    window.add(5, 1, 0);
    expect(window.totals(100).first).toBe(2);
    expect(window.totals(130).first).toBe(0);
  });

  it('knows exactly what lies in its buckets, whatever the gaps between the events', () => {
    const gaps = fc.oneof(fc.integer({ min: 0, max: 30 }), fc.integer({ min: 0, max: 500 }));
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 12 }), fc.array(gaps), (buckets, steps) => {
        const window = new RollingWindow(buckets, 10);
        const times: number[] = [];
        let nowMs = 7;
        for (const step of steps) {
          nowMs += step;
          times.push(nowMs);
          window.add(nowMs, 1, 2);
          const oldest = (Math.floor(nowMs / 10) - buckets + 1) * 10;
          const alive = times.filter((time) => time >= oldest).length;
          expect(window.totals(nowMs)).toEqual({ first: alive, second: 2 * alive });
        }
      }),
    );
  });
});
