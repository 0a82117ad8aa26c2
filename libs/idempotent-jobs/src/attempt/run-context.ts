import type { ClaimRequest, StepName } from '../claim/claim.js';
import type { DeadLetterReason } from '../dead-letter/letter.js';
import type { Attempt, Execution } from '../execute/attempt.js';
import type { Delivery } from '../intake/delivery.js';
import type { EarlierStarts } from '../intake/earlier-starts.js';
import type { Identified } from '../intake/identify.js';
import type { Ending } from './ending.js';
import type { JobEventSubject } from '../observe/job-events.js';
import { payloadTextOf } from '../operation/fingerprint.js';
import { shownKey } from '../operation/step-key.js';
import type { OperationSpan } from '../tracing/operation-span.js';

/** Who asks for an operation to be run: a job, or a call. */
export interface Asked {
  readonly queue: string;
  readonly jobName: string;
  readonly jobId: string;
}

/** One delivery of one operation, as the steps around its handler see it. */
export interface RunContext {
  readonly delivery: Pick<Delivery, 'processor' | 'handsBack' | 'reconcile' | 'fallback' | 'workerId'> & {
    /** Undefined: a call. */
    readonly job: Delivery['job'] | undefined;
  };
  readonly asked: Asked;
  readonly identified: Identified;
  /** What BullMQ has counted of a job that may have been run without the library; undefined: it cannot matter. */
  readonly earlierStarts?: EarlierStarts | undefined;
  readonly attempt: Attempt;
  /** Undefined: nobody traces. */
  readonly span?: OperationSpan | undefined;
  /** Which step of which operation it is; undefined: it is a job's, or a call's. */
  readonly step: StepName | undefined;
  /** Why it is given up before its attempt, whatever its policy says; undefined: that is for the policy to say. */
  readonly givenUpFor?: DeadLetterReason;
  /** Runs another operation inside this one: a step. */
  readonly runWithin: (context: RunContext, handler: () => Promise<unknown>) => Promise<Ending>;
}

/** Whether the handler ended by handing its job back. */
export function handsBack({ delivery }: RunContext, execution: Execution): boolean {
  return execution.kind === 'threw' && delivery.handsBack?.(execution.error) === true;
}

/** What events tell about the run. */
export function subjectOf({
  asked: { queue, jobName, jobId },
  identified,
  step,
}: RunContext): JobEventSubject {
  return {
    queue,
    jobName,
    jobId,
    tenantId: identified.tenantId,
    operationKey: shownKey(identified.operationKey),
    ...(step !== undefined && { stepOf: step.of }),
  };
}

/** What the run asks of the ledger. */
export function claimRequestOf({
  delivery: { processor, workerId },
  asked: { jobName, jobId },
  identified,
  step,
  span,
  earlierStarts,
}: RunContext): ClaimRequest {
  return {
    tenantId: identified.tenantId,
    operationKey: identified.operationKey,
    terms: processor.terms,
    jobName,
    jobId,
    fingerprint: identified.fingerprint,
    workerId,
    deadline: identified.deadline ?? null,
    availableAt: identified.availableAt,
    needsRow: identified.rowMs !== undefined || earlierStarts?.areThere === true,
    step,
    span,
  };
}

/** The payload as it was asked for, as JSON text: a dead letter's evidence. */
export function payloadText({ identified }: RunContext): string {
  return payloadTextOf(identified.canonical);
}
