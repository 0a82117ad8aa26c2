import { describe, expect, it } from 'vitest';
import type { Job } from 'bullmq';
import { unprocessedReasonOf, wasFailedByBullmq } from './unprocessed.js';

describe('unprocessedReasonOf', () => {
  it.each([
    ['job stalled more than allowable limit', 'crash_loop'],
    ['job started more than allowable limit', 'crash_loop'],
    ['child bull:refunds:17 failed', 'permanent_error'],
    ['child bull:refunds:op-1 with a space failed', 'permanent_error'],
  ])('knows what BullMQ writes when it fails a job by itself: %s, which is a %s', (said, reason) => {
    expect(unprocessedReasonOf(said)).toBe(reason);
  });

  it.each([
    ['the message of a handler’s error', 'card declined'],
    ['no reason', undefined],
    ['an empty reason', ''],
    ['a message that only begins like it', 'job stalled more than allowable limit of the bank'],
    ['a message that only ends like it', 'the job started more than allowable limit'],
    ['a message that only quotes it', 'got "child bull:refunds:17 failed"'],
    ['the failure of a child that has no name', 'child failed'],
    ['another case', 'Job stalled more than allowable limit'],
  ])('leaves a job to whoever failed it: %s', (_what, reason) => {
    expect(unprocessedReasonOf(reason)).toBeUndefined();
  });
});

describe('wasFailedByBullmq', () => {
  const failedAs = (failedReason: string, counted: object): Job =>
    ({
      failedReason,
      attemptsStarted: 3,
      attemptsMade: 3,
      stalledCounter: 0,
      getDependenciesCount: async () => ({ failed: 0 }),
      ...counted,
    }) as unknown as Job;

  it.each([
    ['job stalled more than allowable limit', { stalledCounter: 1 }],
    ['job started more than allowable limit', { attemptsStarted: 4 }],
    ['child bull:refunds:17 failed', { getDependenciesCount: async () => ({ failed: 1 }) }],
  ])('believes its words where it has counted what they say: %s', async (said, counted) => {
    expect(await wasFailedByBullmq(failedAs(said, counted))).toBe(true);
    expect(await wasFailedByBullmq(failedAs(said, {}))).toBe(false);
    expect(await wasFailedByBullmq(failedAs('card declined', counted))).toBe(false);
  });
});
