import type { Claim } from '../../ledger/claim/claim.js';
import type { DeadLetterReason } from '../../operation/reasons.js';
import type { HandlerResult } from './handler-run.js';
import { IdempotentJobsError } from '../../operation/errors.js';
import { causesOf, isA, messageOf } from '../../operation/thrown.js';
import type { OperationIdentity } from '../../operation/identity.js';
import { shownKey } from '../../operation/origin.js';
import { PermanentError } from '../../operation/failure.js';

/*
 * The errors that say why a delivery runs nothing, as BullMQ and dead letters show them: what happened, and what a
 * person can do.
 */

/** An operation has to wait for one of its steps. The handler lets this error pass; it spends no attempt. */
export class WaitingError extends IdempotentJobsError {
  constructor({ tenantId, operationKey: key }: OperationIdentity, cause: unknown) {
    const operationKey = shownKey(key);
    super(
      'STEP_WAITING',
      `Step "${operationKey}" of tenant "${tenantId}" is not finished: ${messageOf(cause)} Its handler is run again later; let this error pass.`,
      { cause, data: { tenantId, operationKey } },
    );
  }
}

/** Whether the error is a {@link WaitingError}, or wraps one. */
function isWaiting(error: unknown): boolean {
  return causesOf(error).some((one) => isA(one, WaitingError));
}

/** Whether the handler ended because of an unfinished step, or returned although a step is unfinished. */
export function waitsForStep(result: HandlerResult): boolean {
  return result.kind === 'returned' || (result.kind === 'threw' && isWaiting(result.error));
}

/** The handler of an unrepeatable operation has handed its job back without saying whether its effect happened. */
export class HandedBackError extends IdempotentJobsError {
  constructor({ tenantId, operationKey }: OperationIdentity) {
    super(
      'HANDED_BACK',
      `The handler of operation "${operationKey}" of tenant "${tenantId}" handed its job back by BullMQ's own means after it had begun, and did not say whether its effect had happened. Find out, and resolve its dead letter as applied or as not applied. A handler that has done nothing yet says so before it hands its job back: currentOperation().markNotApplied().`,
      { data: { tenantId, operationKey } },
    );
  }
}

/**
 * A transactional handler has ended its transaction itself. No other cause is possible: other transactions cannot touch
 * the locked row, and no other attempt leaves a claim without an outcome.
 */
export class TransactionLeftError extends PermanentError {
  constructor() {
    super(
      'The outcome could not be recorded: the handler must neither commit nor roll back currentOperation().transaction. Return to commit it, throw to roll it back. If it committed, what it wrote is there without an outcome: look before you redrive it.',
    );
  }
}

/** The job is so old that the ledger may have forgotten its operation. */
export class JobExpiredError extends IdempotentJobsError {
  constructor({ tenantId, operationKey: key }: OperationIdentity, jobId: string) {
    const operationKey = shownKey(key);
    super(
      'JOB_EXPIRED',
      `Job ${jobId} is older than the ledger's memory of completed operations, and operation "${operationKey}" of tenant "${tenantId}" is not in it: nobody can tell whether it has run. Find out, and resolve its dead letter as applied or as not applied.`,
      { data: { tenantId, operationKey, jobId } },
    );
  }
}

/** The operation was given up before its handler was called: it may not be tried again. */
export class GivenUpError extends IdempotentJobsError {
  constructor(claim: Claim, reason: DeadLetterReason) {
    const operationKey = shownKey(claim.operationKey);
    super(
      'OPERATION_GIVEN_UP',
      `Operation "${operationKey}" of tenant "${claim.tenantId}" was given up before attempt ${claim.attempt}: ${reason}.`,
      { data: { tenantId: claim.tenantId, operationKey, reason } },
    );
  }
}
