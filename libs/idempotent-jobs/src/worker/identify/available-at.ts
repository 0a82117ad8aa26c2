import type { Job } from 'bullmq';

/**
 * When a job could first run, in ms since 1970 by its producer's clock: from it follows whether the ledger may have
 * forgotten the operation. A producer may set it, so an invalid time counts as the oldest; the ledger judges times in
 * the future.
 *
 * A delay may have been cut short (`promote()`): a job that is delivered has no delay left.
 */
export function availableAtOf({ timestamp, opts }: Pick<Job, 'timestamp' | 'opts'>): number {
  const addedAt = timeOf(timestamp);
  const delayMs = typeof opts?.delay === 'number' && opts.delay > 0 ? opts.delay : 0;
  return Math.max(addedAt, Math.min(addedAt + delayMs, Date.now()));
}

/** A producer's time, in ms since 1970. An invalid one counts as the oldest, 0. */
export function timeOf(timestamp: unknown): number {
  return typeof timestamp === 'number' && timestamp >= 0 && timestamp <= MAX_TIME_MS ? timestamp : 0;
}

/** The latest time that a Date can hold. */
const MAX_TIME_MS = 8.64e15;
