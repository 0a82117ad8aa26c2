/** What BullMQ writes into `failedReason` when it fails a job without calling its processor. */
const REASONS = [
  /^job stalled more than allowable limit$/,
  /^job started more than allowable limit$/,
  /^child .* failed$/,
];

/**
 * Whether BullMQ has failed a job by itself. Jobs that a processor failed are accounted for where that happened, and
 * jobs that failed before this library came to the queue are none of its business.
 */
export function isFailedUnprocessed(failedReason: string | undefined): boolean {
  return failedReason !== undefined && REASONS.some((reason) => reason.test(failedReason));
}
