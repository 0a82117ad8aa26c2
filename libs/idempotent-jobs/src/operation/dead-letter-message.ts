import type { DeadLetterReason } from './reasons.js';
/** Suffix of a queue's dead-letter queue, unless `registerQueue` names another. */
export const DEAD_LETTER_QUEUE_SUFFIX = '-dlq';

/** The name of every job on a dead-letter queue. */
export const DEAD_LETTER_JOB_NAME = 'dead-letter';

/**
 * The data of a job on a dead-letter queue, and the argument of an `@OnDeadLetter()` method. The queue only carries the
 * news; the evidence (stacks, attempts, versions) is the row of `dead_letters` with this id. `@OnDeadLetter()` trusts only
 * the id of a message; a processor of your own on such a queue looks the letter up with `DeadLetterService.get(letterId)`.
 */
export interface DeadLetterMessage {
  readonly letterId: string;
  readonly reason: DeadLetterReason;
  /** The queue that the job came from. */
  readonly queue: string;
  readonly jobName: string;
  readonly jobId: string;
  /** Null when the delivery had no valid identity. */
  readonly tenantId: string | null;
  readonly operationKey: string | null;
  /** For a step: the key of its operation, and the step's name. */
  readonly stepOf?: string;
  readonly step?: string;
  readonly attempts: number;
  readonly error: { readonly name: string; readonly message: string } | null;
  /** Encrypted on the queue where encryption is on; `@OnDeadLetter()` and `DeadLetterService.get()` decrypt it. */
  readonly payload: unknown;
  /** ISO 8601, by the database's clock. */
  readonly createdAt: string;
}
