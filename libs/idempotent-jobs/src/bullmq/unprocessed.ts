import type { Job } from 'bullmq';
import type { DeadLetterReason } from '../operation/reasons.js';

/** What BullMQ leaves on a job that it fails without calling its processor. */
interface OwnFailure {
  /** What it writes into `failedReason`. */
  readonly said: RegExp;
  readonly reason: DeadLetterReason;
  /** Whether what it has counted bears that out: a worker without the library may have failed the job with any text. */
  readonly isBorneOut: (job: Job) => boolean | Promise<boolean>;
}

const OWN_FAILURES: readonly OwnFailure[] = [
  {
    said: /^job stalled more than allowable limit$/,
    reason: 'crash_loop',
    isBorneOut: ({ stalledCounter }) => stalledCounter > 0,
  },
  {
    said: /^job started more than allowable limit$/,
    reason: 'crash_loop',
    // Starts that ended in no attempt: those that came to an end are as many as there are attempts.
    isBorneOut: ({ attemptsStarted, attemptsMade }) => attemptsStarted > attemptsMade,
  },
  {
    // The parent in a flow: what it needs will not come, however often it is tried.
    said: /^child .* failed$/,
    reason: 'permanent_error',
    isBorneOut: async (job) => ((await job.getDependenciesCount({ failed: true })).failed ?? 0) > 0,
  },
];

/**
 * Why BullMQ has failed a job by itself, by what it says of that; undefined: it has not. To be believed of a job that no
 * processor was called for.
 */
export function unprocessedReasonOf(failedReason: string | undefined): DeadLetterReason | undefined {
  return ownFailureOf(failedReason)?.reason;
}

/**
 * Whether BullMQ has failed a job by itself, as far as can be told afterwards. Jobs that a processor failed are accounted
 * for where that happened, and jobs that failed before this library came to the queue are none of its business.
 */
export async function wasFailedByBullmq(job: Job): Promise<boolean> {
  return (await ownFailureOf(job.failedReason)?.isBorneOut(job)) === true;
}

function ownFailureOf(failedReason: string | undefined): OwnFailure | undefined {
  if (failedReason === undefined) return undefined;
  return OWN_FAILURES.find(({ said }) => said.test(failedReason));
}
