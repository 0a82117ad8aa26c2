import type { Job } from 'bullmq';

/**
 * When a job could first run, in ms since 1970 by the clock of whoever made it: what tells whether its operation may have
 * been forgotten since. A producer may set it, so what is no time counts as the oldest; what lies in the future is for
 * the ledger to judge.
 *
 * A delay may have been cut short (`promote()`): of a job that is here, it is over.
 */
export function availableAtOf({ timestamp, opts }: Pick<Job, 'timestamp' | 'opts'>): number {
  const addedAt = timeOf(timestamp);
  const delayMs = typeof opts?.delay === 'number' && opts.delay > 0 ? opts.delay : 0;
  return Math.max(addedAt, Math.min(addedAt + delayMs, Date.now()));
}

/** A time in ms since 1970 that a producer has given; what is none counts as the oldest. */
export function timeOf(timestamp: unknown): number {
  return typeof timestamp === 'number' && timestamp >= 0 && timestamp <= MAX_TIME_MS ? timestamp : 0;
}

/** What a Date can hold. */
const MAX_TIME_MS = 8.64e15;
