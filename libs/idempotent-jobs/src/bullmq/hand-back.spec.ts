import { DelayedError, type Job, RateLimitError, WaitingChildrenError, WaitingError } from 'bullmq';
import { describe, expect, it } from 'vitest';
import { isHandBack, QueueLimits, wasMoved, watchMoves } from './hand-back.js';

/** As much of BullMQ's class as moves jobs; says whether BullMQ agrees. */
class FakeJob {
  readonly queueName = 'charges';

  constructor(private readonly answer: () => Promise<unknown>) {}

  moveToDelayed(): Promise<unknown> {
    return this.answer();
  }

  moveToWait(): Promise<unknown> {
    return this.answer();
  }

  moveToWaitingChildren(): Promise<unknown> {
    return this.answer();
  }
}

function watched(answer: () => Promise<unknown> = async () => true): Job {
  const job = new FakeJob(answer) as unknown as Job;
  watchMoves(job);
  return job;
}

const MOVES: readonly (readonly [string, (job: Job) => Promise<unknown>])[] = [
  ['moveToDelayed', (job) => job.moveToDelayed(1, 'token')],
  ['moveToWait', (job) => job.moveToWait('token')],
  ['moveToWaitingChildren', (job) => job.moveToWaitingChildren('token')],
];

const none = new QueueLimits();

describe('a job that its handler moves', () => {
  it.each(MOVES)('is noted once BullMQ has done it: %s', async (_what, move) => {
    const job = watched();
    expect(wasMoved(job)).toBe(false);
    await move(job);
    expect(wasMoved(job)).toBe(true);
    for (const error of [new DelayedError(), new WaitingError('see you'), new WaitingChildrenError()])
      expect(isHandBack(error, job, none)).toBe(true);
    expect(isHandBack(new Error('bullmq:movedToDelayed'), job, none)).toBe(false);
  });

  it.each(MOVES)('is not where BullMQ refuses: %s', async (_what, move) => {
    const job = watched(() => Promise.reject(new Error('Missing lock')));
    await expect(move(job)).rejects.toThrow('Missing lock');
    expect(wasMoved(job)).toBe(false);
    expect(isHandBack(new DelayedError(), job, none)).toBe(false);
  });

  it('is not where no child is left to wait for', async () => {
    const job = watched(async () => false);
    expect(await job.moveToWaitingChildren('token')).toBe(false);
    expect(wasMoved(job)).toBe(false);
  });
});

describe('a queue that a handler limits', () => {
  const limited = async (ms: number): Promise<QueueLimits> => {
    const limits = new QueueLimits();
    const worker = { rateLimit: async () => undefined };
    limits.watch('charges', worker);
    await (worker.rateLimit as (ms: number) => Promise<void>)(ms);
    return limits;
  };

  it('is known to be, until the limit is over', async () => {
    expect(isHandBack(new RateLimitError(), watched(), await limited(60_000))).toBe(true);
    expect(isHandBack(new RateLimitError(), watched(), await limited(0))).toBe(false);
  });

  it('is not for the words of an error, nor for another queue', async () => {
    const limits = await limited(60_000);
    expect(isHandBack(new Error('bullmq:rateLimitExceeded'), watched(), limits)).toBe(false);
    expect(limits.isSet('refunds')).toBe(false);
    expect(isHandBack(new RateLimitError(), watched(), none)).toBe(false);
  });
});
