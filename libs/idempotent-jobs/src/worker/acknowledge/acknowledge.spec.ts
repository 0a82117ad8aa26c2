import { DelayedError, type Job, RateLimitError, UnrecoverableError } from 'bullmq';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { BACKOFF_TYPE, backoffStrategy } from '../../bullmq/error-for-bullmq.js';
import { type Ack, acknowledge } from './acknowledge.js';

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
async function outcome(job: Job, ack: Ack): Promise<{ returned?: unknown; thrown?: unknown }> {
  try {
    return { returned: await acknowledge(job, 'token-1', ack) };
  } catch (thrown) {
    return { thrown };
  }
}

describe('acknowledge: done', () => {
  it.each([{ ok: true }, undefined, null, 0])('returns the result as it is: %o', async (result) => {
    const { job, calls } = fakeJob();
    expect(await outcome(job, { kind: 'done', result })).toEqual({ returned: result });
    expect(calls).toEqual([]);
  });
});

describe('acknowledge: retry', () => {
  it('throws a copy of the handler’s error, and the backoff strategy knows its delay', async () => {
    const { job, calls } = fakeJob({ opts: ours });
    const error = new RangeError('declined');
    const { thrown } = await outcome(job, { kind: 'retry', error, delayMs: 4_321 });
    expect(thrown).not.toBe(error);
    expect(thrown).toMatchObject({ name: 'RangeError', message: 'declined', stack: error.stack });
    expect(backoffStrategy(1, BACKOFF_TYPE, thrown as Error)).toBe(4_321);
    expect(calls).toEqual([]);
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

  it.each(['retry', 'fail'] as const)('keeps the last ten stacks of a job: %s', async (kind) => {
    const { job } = fakeJob({ opts: ours });
    job.stacktrace = Array.from({ length: 40 }, (_none, number) => `stack ${number}`);
    await outcome(job, { kind, error: new Error('x'), delayMs: 1 });
    // BullMQ adds the last one.
    expect(job.stacktrace).toEqual(Array.from({ length: 9 }, (_none, number) => `stack ${number + 31}`));
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
        expect(thrown).toMatchObject({ name: 'Error', message: 'declined' });
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

describe('acknowledge: a job log that BullMQ does not write', () => {
  it('changes nothing: the job comes again when it should', async () => {
    const { job, calls } = fakeJob();
    job.log = () => Promise.reject(new Error('unsupported Unicode escape sequence'));
    const { thrown } = await outcome(job, { kind: 'retry', error: new Error('said \0'), delayMs: 2_000 });
    expect(thrown).toBeInstanceOf(DelayedError);
    expect(calls).toEqual([['moveToDelayed', NOW + 2_000, 'token-1']]);
  });

  it('holds a few clean lines, however long the message', async () => {
    const { job, calls } = fakeJob();
    await outcome(job, { kind: 'retry', error: new Error(`\0${'m'.repeat(1_000_000)}`), delayMs: 5 });
    const [, line] = calls[0] as [string, string];
    expect(line.length).toBeLessThan(2_100);
    expect(line).not.toContain('\0');
  });
});

describe('acknowledge: defer', () => {
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

  it.each(['defer', 'retry'] as const)(
    'leaves a job that BullMQ does not move where it is, to be found stalled, rather than failed: %s',
    async (kind) => {
      const { job } = fakeJob();
      job.moveToDelayed = () => Promise.reject(new Error('Missing lock for job 1'));
      const { thrown } = await outcome(job, { kind, error: new Error('x'), delayMs: 5 });
      expect(thrown).toBeInstanceOf(DelayedError);
    },
  );

  it('has BullMQ carry the delay of a job that it does not move, where it can', async () => {
    const { job } = fakeJob({ opts: ours });
    job.moveToDelayed = () => Promise.reject(new Error('the connection is gone'));
    const { thrown } = await outcome(job, { kind: 'defer', delayMs: 5_000 });
    expect(thrown).toMatchObject({ name: 'Error', message: 'the connection is gone' });
    expect(backoffStrategy(1, BACKOFF_TYPE, thrown as Error)).toBe(5_000);
  });
});

describe('acknowledge: fail', () => {
  it('throws the class that BullMQ never retries, with message and stack of the original, and nothing else of it', async () => {
    const error = new RangeError('amount is negative', { cause: { card: '4242' } });
    const { thrown } = await outcome(fakeJob({ opts: ours }).job, { kind: 'fail', error });
    expect(thrown).toBeInstanceOf(UnrecoverableError);
    expect(thrown).toMatchObject({ name: 'UnrecoverableError', message: 'amount is negative' });
    expect((thrown as Error).stack).toBe(error.stack);
    expect((thrown as Error).cause).toBeUndefined();
  });

  it('tells name and message where the original has no stack', async () => {
    const error = new RangeError('bare');
    delete error.stack;
    const { thrown } = await outcome(fakeJob().job, { kind: 'fail', error });
    expect((thrown as Error).stack).toBe('RangeError: bare');
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

describe('acknowledge: hand back', () => {
  it('throws what BullMQ knows a limit by, of its own making', async () => {
    const { job, calls } = fakeJob({ opts: ours });
    expect((await outcome(job, { kind: 'hand_back' })).thrown).toBeInstanceOf(RateLimitError);
    expect(calls).toEqual([]);
  });
});
