import { ErrorCode, type Queue } from 'bullmq';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { keepingDue } from './due-iteration.js';

const DUE_AT = Date.UTC(2026, 0, 31, 6);
const JOB = {
  id: `repeat:op-1:${DUE_AT}`,
  name: 'report',
  data: { of: 'sales' },
  opts: { repeat: { pattern: '0 6 * * *' }, attempts: 3, priority: 2, delay: 99, prevMillis: DUE_AT },
};

/** The iteration after it, a second later. */
const LATER = { id: `repeat:op-1:${DUE_AT + 1000}` };

/** What was asked of BullMQ, in order. `next` is what the scheduler waits for, each time that it is asked. */
function recorded(
  next: number | undefined | readonly number[],
  leave: () => Promise<unknown> = async () => undefined,
) {
  const asked: unknown[] = [];
  const left = typeof next === 'object' ? [...next] : [];
  const nextOne = (): number | undefined => (typeof next === 'object' ? left.shift() : next);
  const queue = {
    getJobScheduler: async () => ({ next: nextOne() }),
    getJob: async (id: string) =>
      id === JOB.id || id === LATER.id ? { ...JOB, ...(id === LATER.id && LATER) } : undefined,
    jobScheduler: Promise.resolve({
      upsertJobScheduler: (
        id: string,
        _repeat: object,
        _name: string,
        _data: object,
        _opts: object,
        how: object,
      ) => {
        asked.push(['leave', id, how]);
        return leave();
      },
    }),
    add: async (name: string, data: object, opts: object) => asked.push(['add', name, data, opts]),
  };
  const change = async (): Promise<string> => {
    asked.push('change');
    return 'changed';
  };
  return { asked, change, queue: queue as unknown as Queue };
}

const BACK = ['add', 'report', JOB.data, { attempts: 3, priority: 2, jobId: JOB.id }];
const LEAVES = ['leave', 'op-1', { override: false, producerId: JOB.id }];

describe('a change of a scheduler', () => {
  beforeEach(() => vi.useFakeTimers({ toFake: ['Date'] }));
  afterEach(() => vi.useRealTimers());

  it('lets the iteration that is due go before, as a worker would, and makes sure that it is there after', async () => {
    vi.setSystemTime(DUE_AT);
    const { asked, change, queue } = recorded(DUE_AT);
    expect(await keepingDue(queue, 'op-1', change)).toBe('changed');
    expect(asked).toEqual([LEAVES, 'change', BACK]);
  });

  it('puts back the iteration that falls due meanwhile', async () => {
    vi.setSystemTime(DUE_AT - 1);
    const { asked, change, queue } = recorded(DUE_AT);
    await keepingDue(queue, 'op-1', () => {
      vi.setSystemTime(DUE_AT);
      return change();
    });
    expect(asked).toEqual(['change', BACK]);
  });

  it('lets go what falls due while another one leaves, and keeps the one after them', async () => {
    vi.setSystemTime(DUE_AT + 1000);
    const { asked, change, queue } = recorded([DUE_AT, DUE_AT + 1000, DUE_AT + 2000]);
    await keepingDue(queue, 'op-1', change);
    const laterLeaves = ['leave', 'op-1', { override: false, producerId: LATER.id }];
    const laterBack = ['add', 'report', JOB.data, { attempts: 3, priority: 2, jobId: LATER.id }];
    expect(asked).toEqual([LEAVES, laterLeaves, 'change', BACK, laterBack]);
  });

  it('that makes a scheduler tells when it was begun; one that finds it there does not', async () => {
    vi.setSystemTime(DUE_AT - 1);
    const begun: number[] = [];
    const note = async (at: number): Promise<void> => void begun.push(at);
    const fresh = recorded(undefined);
    await keepingDue(
      fresh.queue,
      'op-1',
      () => {
        vi.setSystemTime(DUE_AT + 1);
        return fresh.change();
      },
      note,
    );
    const known = recorded(DUE_AT);
    await keepingDue(known.queue, 'op-1', known.change, note);
    expect(begun).toEqual([DUE_AT - 1]);
  });

  it('leaves alone what is not due', async () => {
    vi.setSystemTime(DUE_AT - 1);
    const { asked, change, queue } = recorded(DUE_AT);
    await keepingDue(queue, 'op-1', change);
    expect(asked).toEqual(['change']);
  });

  it('puts back an iteration whose times cannot be read any more', async () => {
    vi.setSystemTime(DUE_AT);
    const { asked, change, queue } = recorded(DUE_AT, () => Promise.reject(new Error('no such pattern')));
    await keepingDue(queue, 'op-1', change);
    expect(asked).toEqual([LEAVES, 'change', BACK]);
  });

  it.each([undefined, DUE_AT - 60_000])(
    'has nothing to keep where the next is %s and has no job',
    async (next) => {
      vi.setSystemTime(DUE_AT);
      const { asked, change, queue } = recorded(next);
      await keepingDue(queue, 'op-1', change);
      expect(asked).toEqual(['change']);
    },
  );

  describe('that meets another of the same scheduler', () => {
    const deadlock = Object.assign(new Error('deadlock detected'), { code: '40P01', severity: 'ERROR' });
    const collision = Object.assign(new Error('collision'), { code: ErrorCode.SchedulerJobIdCollision });
    const slotsBusy = Object.assign(new Error('busy'), { code: ErrorCode.SchedulerJobSlotsBusy });
    beforeEach(() => void vi.spyOn(Math, 'random').mockReturnValue(0));
    afterEach(() => vi.restoreAllMocks());
    /** Fails so often, and then does it. */
    const failing = (error: Error, times: number, change: () => Promise<string>) => {
      let left = times;
      return () => ((left -= 1) < 0 ? change() : Promise.reject(error));
    };

    it.each([deadlock, collision, slotsBusy])('is tried again: %s', async (error) => {
      vi.setSystemTime(DUE_AT - 1);
      const { asked, change, queue } = recorded(DUE_AT);
      expect(await keepingDue(queue, 'op-1', failing(error, 9, change))).toBe('changed');
      expect(asked).toEqual(['change']);
    });

    it('is given up where it goes on meeting it', async () => {
      vi.setSystemTime(DUE_AT - 1);
      const { asked, change, queue } = recorded(DUE_AT);
      await expect(keepingDue(queue, 'op-1', failing(deadlock, 10, change))).rejects.toBe(deadlock);
      expect(asked).toEqual([]);
    });

    it('is not taken for that by a code that anybody can write', async () => {
      const { change, queue } = recorded(undefined);
      const odd = Object.assign(new Error('odd'), { code: '40P01' });
      await expect(keepingDue(queue, 'op-1', failing(odd, 1, change))).rejects.toBe(odd);
    });
  });

  it('that fails puts nothing back', async () => {
    vi.setSystemTime(DUE_AT - 1);
    const { asked, queue } = recorded(DUE_AT);
    await expect(keepingDue(queue, 'op-1', () => Promise.reject(new Error('gone')))).rejects.toThrow('gone');
    expect(asked).toEqual([]);
  });
});
