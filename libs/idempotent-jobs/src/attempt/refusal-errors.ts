import type { Job } from 'bullmq';
import type { Claim } from '../claim/claim.js';
import type { DeadLetterReason } from '../dead-letter/letter.js';
import { IdempotentJobsError } from '../operation/errors.js';
import type { OperationIdentity } from '../operation/identity.js';

/* Why a delivery runs nothing, as BullMQ and dead letters show it: what happened, and what a person can do. */

/** A stray delivery of an operation that was given up. */
export class OperationDeadError extends IdempotentJobsError {
  constructor(tenantId: string, operationKey: string) {
    super(
      'OPERATION_DEAD',
      `Operation "${operationKey}" of tenant "${tenantId}" was given up; retrying its job runs nothing. Its evidence is in dead_letters: redrive it from there.`,
      { data: { tenantId, operationKey } },
    );
  }
}

/** A delivery of an operation that waits for somebody to say what happened. */
export class OperationInDoubtError extends IdempotentJobsError {
  constructor(tenantId: string, operationKey: string) {
    super(
      'OPERATION_IN_DOUBT',
      `Operation "${operationKey}" of tenant "${tenantId}" is in doubt: an attempt ended without telling whether its effect happened, and its effect must not be repeated. Find out, and resolve its dead letter as applied or as not applied.`,
      { data: { tenantId, operationKey } },
    );
  }
}

/** A job whose operation may have been forgotten. */
export class JobExpiredError extends IdempotentJobsError {
  constructor({ tenantId, operationKey }: OperationIdentity, job: Job) {
    super(
      'JOB_EXPIRED',
      `Job ${job.id} is older than the ledger's memory of completed operations, and operation "${operationKey}" of tenant "${tenantId}" is not in it: nobody can tell whether it has run. Find out, and resolve its dead letter as applied or as not applied.`,
      { data: { tenantId, operationKey, jobId: job.id } },
    );
  }
}

/** An operation that may not be tried again, before its handler. */
export class GivenUpError extends IdempotentJobsError {
  constructor(claim: Claim, reason: DeadLetterReason) {
    super(
      'OPERATION_GIVEN_UP',
      `Operation "${claim.operationKey}" of tenant "${claim.tenantId}" was given up before attempt ${claim.attempt}: ${reason}.`,
      { data: { tenantId: claim.tenantId, operationKey: claim.operationKey, reason } },
    );
  }
}
