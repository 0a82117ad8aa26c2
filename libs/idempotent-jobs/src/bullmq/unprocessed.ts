import type { DeadLetterReason } from '../dead-letter/letter.js';

/** What BullMQ writes into `failedReason` when it fails a job without calling its processor, and what that means. */
const REASONS: readonly (readonly [RegExp, DeadLetterReason])[] = [
  [/^job stalled more than allowable limit$/, 'crash_loop'],
  [/^job started more than allowable limit$/, 'crash_loop'],
  // The parent in a flow: what it needs will not come, however often it is tried.
  [/^child .* failed$/, 'permanent_error'],
];

/**
 * Why BullMQ has failed a job by itself; undefined: it has not. Jobs that a processor failed are accounted for where
 * that happened, and jobs that failed before this library came to the queue are none of its business.
 */
export function unprocessedReasonOf(failedReason: string | undefined): DeadLetterReason | undefined {
  if (failedReason === undefined) return undefined;
  return REASONS.find(([pattern]) => pattern.test(failedReason))?.[1];
}
