import type { Job } from 'bullmq';
import type { ClaimRequest, StepName } from '../../ledger/claim/claim.js';
import type { RejectionCause } from '../../operation/reasons.js';
import type { CurrentOperation } from './current-operation.js';
import type { HandlerResult, HandlerRun } from './handler-run.js';
import type { EarlierStarts } from '../identify/earlier-starts.js';
import type { Identified } from '../identify/identify.js';
import type { OperationRules } from '../rules/operation-rules.js';
import type { JobEventSubject } from '../../events/job-events.js';
import { CALLS } from '../../operation/calls.js';
import { payloadTextOf } from '../../operation/fingerprint.js';
import type { JobSubject } from '../../operation/job-subject.js';
import { shownKey } from '../../operation/step-key.js';
import type { OperationSpan } from './operation-span.js';

/** What a handler can do besides being called. */
export interface HandlerMeans {
  /** Whether the handler has handed its job back by BullMQ's own means, when it threw that. Undefined: it has no job. */
  readonly handsBack: ((error: unknown) => boolean) | undefined;
  /** Finds out whether the effect of the last attempt happened; undefined: there is no way. */
  readonly reconcile: ((operation: CurrentOperation) => unknown) | undefined;
  /** Stands in for the dependency while it lets nothing through; undefined: there is nothing that could. */
  readonly fallback: ((operation: CurrentOperation, reason: RejectionCause) => unknown) | undefined;
}

/** One run of one operation, for a job, a step or a call: who it is, by which rules it runs, and what it can do. */
export interface OperationRun extends HandlerMeans {
  /** Names this run, not this process: process and running number. */
  readonly runId: string;
  readonly rules: OperationRules;
  /** What asks for the operation, as events name it. */
  readonly subject: JobSubject;
  readonly identified: Identified;
  /** Undefined: a call asks for it. */
  readonly job: Job | undefined;
  /** What BullMQ has counted of a job that may have been run without the library; undefined: it cannot matter. */
  readonly earlierStarts: EarlierStarts | undefined;
  readonly handlerRun: HandlerRun;
  /** Undefined: nobody traces. */
  readonly span: OperationSpan | undefined;
  /** Which step of which operation it is; undefined: it is a job's, or a call's. */
  readonly step: StepName | undefined;
}

/** Whether a call asks for the operation, or a step of one, and no job. */
export function isCall({ subject }: OperationRun): boolean {
  return subject.queue === CALLS;
}

/** Whether the handler ended by handing its job back. */
export function handsBack({ handsBack: isHandBack }: OperationRun, result: HandlerResult): boolean {
  return result.kind === 'threw' && isHandBack?.(result.error) === true;
}

/** What events tell about the run. */
export function subjectOf({
  subject: { queue, jobName, jobId },
  identified,
  step,
}: OperationRun): JobEventSubject {
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
  rules,
  runId,
  subject: { jobName, jobId },
  identified,
  step,
  span,
  earlierStarts,
}: OperationRun): ClaimRequest {
  return {
    tenantId: identified.tenantId,
    operationKey: identified.operationKey,
    rules: rules.claim,
    jobName,
    jobId,
    fingerprint: identified.fingerprint,
    runId,
    deadline: identified.deadline ?? null,
    availableAt: identified.availableAt,
    needsRow: identified.rowMs !== undefined || earlierStarts?.areThere === true,
    step,
    span,
  };
}

/** The payload as it was asked for, as JSON text: a dead letter's evidence. */
export function payloadText({ identified }: OperationRun): string {
  return payloadTextOf(identified.canonical);
}
