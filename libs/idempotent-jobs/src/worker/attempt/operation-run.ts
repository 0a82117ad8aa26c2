import type { Job } from 'bullmq';
import type { ClaimRequest, StepName } from '../../ledger/claim/claim.js';
import type { RejectionCause } from '../../operation/reasons.js';
import type { CurrentOperation } from './current-operation.js';
import type { HandlerResult, HandlerRun } from './handler-run.js';
import type { EarlierStarts } from '../identify/earlier-starts.js';
import type { Identified } from '../identify/identify.js';
import type { OperationRules } from '../rules/operation-rules.js';
import type { JobEventSubject } from '../../events/job-events.js';
import { payloadTextOf } from '../../operation/json.js';
import type { JobSubject } from '../../operation/job.js';
import { shownKey } from '../../operation/origin.js';
import type { OperationSpan } from './operation-span.js';

/** What a handler can do besides being called. */
export interface HandlerMeans {
  /**
   * Whether the handler has handed its job back by BullMQ's own means, given what it threw. Undefined when it has no
   * job.
   */
  readonly handsBack: ((error: unknown) => boolean) | undefined;
  /** Finds out whether the effect of the last attempt happened. Undefined when there is no way to. */
  readonly reconcile: ((operation: CurrentOperation) => unknown) | undefined;
  /** Stands in for the dependency while it lets nothing through. Undefined when there is no fallback. */
  readonly fallback: ((operation: CurrentOperation, reason: RejectionCause) => unknown) | undefined;
}

/** One run of one operation, for a job, a step or a call: its identity, its rules, and what can be called for it. */
export interface OperationRun extends HandlerMeans {
  /** The run id: host, process and a running number. */
  readonly runId: string;
  readonly rules: OperationRules;
  /** The job that asks for the operation, as events name it. */
  readonly subject: JobSubject;
  readonly identified: Identified;
  /** Undefined when a call asks for the operation. */
  readonly job: Job | undefined;
  /** What BullMQ has counted of a job that may have been run without the library. Undefined when it does not matter. */
  readonly earlierStarts: EarlierStarts | undefined;
  readonly handlerRun: HandlerRun;
  /** Undefined without `forRoot({ tracing })`. */
  readonly span: OperationSpan | undefined;
  /** Which step of which operation it is. Undefined for a job or a call. */
  readonly step: StepName | undefined;
}

/** Whether a call, or a step of a call, asks for the operation, and no job. */
export function isCall({ rules }: OperationRun): boolean {
  return rules.claim.origin === 'call';
}

/** Whether the handler ended by handing its job back. */
export function handsBack({ handsBack: isHandBack }: OperationRun, result: HandlerResult): boolean {
  return result.kind === 'threw' && isHandBack?.(result.error) === true;
}

/** The fields by which events name the run. */
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

/** The run's request for a claim. */
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

/** The payload as it was enqueued, as JSON text: the evidence of a dead letter. */
export function payloadText({ identified }: OperationRun): string {
  return payloadTextOf(identified.canonical);
}
