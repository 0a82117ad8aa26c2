import type { Job } from 'bullmq';
import type { DeadLetterReason } from '../operation/reasons.js';

/** What a job looks like when BullMQ has failed it without calling its processor. */
interface OwnFailure {
  /** The text that BullMQ writes into `failedReason`. */
  readonly said: RegExp;
  readonly reason: DeadLetterReason;
  /**
   * Whether BullMQ's counters confirm the text: a worker without the library may have failed the job with the same
   * text.
   */
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
    // More starts than ended attempts: some starts never ended.
    isBorneOut: ({ attemptsStarted, attemptsMade }) => attemptsStarted > attemptsMade,
  },
  {
    // A parent in a flow: its failed child will not come, however often it is tried.
    said: /^child .* failed$/,
    reason: 'permanent_error',
    isBorneOut: async (job) => ((await job.getDependenciesCount({ failed: true })).failed ?? 0) > 0,
  },
];

/**
 * Why BullMQ has failed a job by itself, by the text that it left. Undefined when it has not. Reliable only for a job
 * whose processor was not called.
 */
export function unprocessedReasonOf(failedReason: string | undefined): DeadLetterReason | undefined {
  return ownFailureOf(failedReason)?.reason;
}

/**
 * Whether BullMQ has failed a job by itself, as far as can be told afterwards. A job that a processor failed has been
 * recorded then, and one that failed before this library came to the queue is not its concern.
 */
export async function wasFailedByBullmq(job: Job): Promise<boolean> {
  return (await ownFailureOf(job.failedReason)?.isBorneOut(job)) === true;
}

function ownFailureOf(failedReason: string | undefined): OwnFailure | undefined {
  if (failedReason === undefined) return undefined;
  return OWN_FAILURES.find(({ said }) => said.test(failedReason));
}
