import { DelayedError, type Job, UnrecoverableError, WaitingError } from 'bullmq';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { BACKOFF_TYPE, backoffStrategy } from '../bullmq/retry-carrier.js';
import { settle } from './settle.js';
import type { Settlement } from './settlement.js';

const NOW = new Date('2026-03-01T12:00:00Z').getTime();

beforeEach(() => {
  vi.useFakeTimers({ now: NOW });
});
afterEach(() => {
  vi.useRealTimers();
});

/** The part of a BullMQ job that settling touches; what it was asked for, in order. */
function fakeJob({ attemptsMade = 0, opts = {} }: { attemptsMade?: number; opts?: object } = {}) {
  const calls: [string, ...unknown[]][] = [];
  const job = {
    attemptsMade,
    opts,
    log: async (line: string) => void calls.push(['log', line]),
    moveToDelayed: async (timestamp: number, token?: string) =>
      void calls.push(['moveToDelayed', timestamp, token]),
  } as unknown as Job;
  return { job, calls };
}

const ours = { attempts: 100_000, backoff: { type: BACKOFF_TYPE } };

/** What BullMQ gets to see: the return value, or what is thrown. */
async function outcome(job: Job, settlement: Settlement): Promise<{ returned?: unknown; thrown?: unknown }> {
  try {
    return { returned: await settle(job, 'token-1', settlement) };
  } catch (thrown) {
    return { thrown };
  }
}

describe('settle: ack', () => {
  it.each([{ ok: true }, undefined, null, 0])('returns the result as it is: %o', async (result) => {
    const { job, calls } = fakeJob();
    expect(await outcome(job, { kind: 'ack', result })).toEqual({ returned: result });
    expect(calls).toEqual([]);
  });
});

describe('settle: retry', () => {
  it('throws the handler’s own error, and the backoff strategy knows its delay', async () => {
    const { job, calls } = fakeJob({ opts: ours });
    const error = new Error('declined');
    const { thrown } = await outcome(job, { kind: 'retry', error, delayMs: 4_321 });
    expect(thrown).toBe(error);
    expect(backoffStrategy(1, BACKOFF_TYPE, error)).toBe(4_321);
    expect(calls).toEqual([]);
  });

  it('adds nothing to the handler’s error, not even to a frozen one', async () => {
    const error = Object.freeze(new Error('frozen'));
    const { thrown } = await outcome(fakeJob({ opts: ours }).job, { kind: 'retry', error, delayMs: 9 });
    expect(thrown).toBe(error);
    expect(backoffStrategy(1, BACKOFF_TYPE, error)).toBe(9);
  });

  it.each([
    ['a string', 'no luck', 'no luck'],
    ['undefined', undefined, 'a thrown undefined'],
    ['null', null, 'a thrown null'],
    ['an object without a prototype', Object.create(null), 'a thrown object'],
    ['an object with a message', { message: 'declined' }, 'declined'],
    ['a number', 42, '42'],
    ['a symbol', Symbol('odd'), 'Symbol(odd)'],
  ])('makes an error of %s that was thrown, and carries the delay', async (_what, error, message) => {
    const { thrown } = await outcome(fakeJob({ opts: ours }).job, { kind: 'retry', error, delayMs: 77 });
    expect(thrown).toBeInstanceOf(Error);
    expect((thrown as Error).message).toBe(message);
    expect(backoffStrategy(1, BACKOFF_TYPE, thrown as Error)).toBe(77);
  });

  it.each([
    { attemptsMade: 0, opts: { attempts: 2, backoff: { type: BACKOFF_TYPE } }, carries: true },
    { attemptsMade: 98, opts: { attempts: 100, backoff: { type: BACKOFF_TYPE } }, carries: true },
    { attemptsMade: 99, opts: { attempts: 100, backoff: { type: BACKOFF_TYPE } }, carries: false },
    { attemptsMade: 1, opts: { attempts: 2, backoff: { type: BACKOFF_TYPE } }, carries: false },
    { attemptsMade: 0, opts: { attempts: 1, backoff: { type: BACKOFF_TYPE } }, carries: false },
    { attemptsMade: 0, opts: { backoff: { type: BACKOFF_TYPE } }, carries: false },
    { attemptsMade: 0, opts: { attempts: 5 }, carries: false },
    { attemptsMade: 0, opts: { attempts: 5, backoff: 1_000 }, carries: false },
    { attemptsMade: 0, opts: { attempts: 5, backoff: { type: 'exponential', delay: 10 } }, carries: false },
    { attemptsMade: 0, opts: {}, carries: false },
  ])(
    'after $attemptsMade attempts of $opts, BullMQ carries the retry: $carries',
    async ({ attemptsMade, opts, carries }) => {
      const { job, calls } = fakeJob({ attemptsMade, opts });
      const error = new Error('declined');
      const { thrown } = await outcome(job, { kind: 'retry', error, delayMs: 2_000 });
      if (carries) {
        expect(thrown).toBe(error);
        expect(calls).toEqual([]);
      } else {
        expect(thrown).toBeInstanceOf(DelayedError);
        expect(calls).toEqual([
          ['log', 'Attempt failed, next one in 2000 ms: declined'],
          ['moveToDelayed', NOW + 2_000, 'token-1'],
        ]);
      }
    },
  );

  it.each([
    ['a text', 'no luck', 'no luck'],
    ['null', null, 'a thrown null'],
    ['an object without a prototype', Object.create(null), 'a thrown object'],
  ])('logs what was thrown even if it is no error: %s', async (_what, error, told) => {
    const { job, calls } = fakeJob();
    const { thrown } = await outcome(job, { kind: 'retry', error, delayMs: 5 });
    expect(calls[0]).toEqual(['log', `Attempt failed, next one in 5 ms: ${told}`]);
    expect(thrown).toBeInstanceOf(DelayedError);
  });
});

describe('settle: defer', () => {
  it.each([
    [1_000, 1_000],
    [0.2, 1],
    [0, 1],
    [-50, 1],
    [10.01, 11],
  ])(
    'moves the job to %d ms from now as at least one whole millisecond (%i), under its token',
    async (delayMs, wait) => {
      const { job, calls } = fakeJob({ opts: ours });
      const { thrown } = await outcome(job, { kind: 'defer', delayMs });
      expect(thrown).toBeInstanceOf(DelayedError);
      expect(calls).toEqual([['moveToDelayed', NOW + wait, 'token-1']]);
    },
  );

  it('does not claim the job was delayed when BullMQ refuses to move it', async () => {
    const { job } = fakeJob();
    const refusal = new Error('Missing lock for job 1');
    job.moveToDelayed = () => Promise.reject(refusal);
    expect(await outcome(job, { kind: 'defer', delayMs: 5 })).toEqual({ thrown: refusal });
  });
});

describe('settle: fail', () => {
  it('throws the class that BullMQ never retries, with message, stack and cause of the original', async () => {
    const error = new RangeError('amount is negative');
    const { thrown } = await outcome(fakeJob({ opts: ours }).job, { kind: 'fail', error });
    expect(thrown).toBeInstanceOf(UnrecoverableError);
    expect(thrown).toMatchObject({ name: 'UnrecoverableError', message: 'amount is negative' });
    expect((thrown as Error).stack).toBe(error.stack);
    expect((thrown as Error).cause).toBe(error);
  });

  it('keeps a stack of its own when the original has none', async () => {
    const error = new Error('bare');
    delete error.stack;
    const { thrown } = await outcome(fakeJob().job, { kind: 'fail', error });
    expect((thrown as Error).stack).toContain('UnrecoverableError');
  });

  it('throws an UnrecoverableError as it is', async () => {
    const error = new UnrecoverableError('enough');
    expect((await outcome(fakeJob().job, { kind: 'fail', error })).thrown).toBe(error);
  });

  it.each([
    ['a string', 'just text', 'just text'],
    ['null', null, 'a thrown null'],
    ['undefined', undefined, 'a thrown undefined'],
    ['an object without a prototype', Object.create(null), 'a thrown object'],
  ])('makes an error that BullMQ never retries of %s that was thrown', async (_what, error, message) => {
    const { thrown } = await outcome(fakeJob().job, { kind: 'fail', error });
    expect(thrown).toBeInstanceOf(UnrecoverableError);
    expect((thrown as Error).message).toBe(message);
  });
});

describe('settle: hand back', () => {
  it.each([
    ['a WaitingError', new WaitingError()],
    ['an object that is no error', { odd: true }],
  ])('throws the same object again: %s', async (_what, error) => {
    const { job, calls } = fakeJob({ opts: ours });
    expect((await outcome(job, { kind: 'hand_back', error })).thrown).toBe(error);
    expect(calls).toEqual([]);
  });
});
