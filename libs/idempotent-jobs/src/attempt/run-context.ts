import type { Job } from 'bullmq';
import type { ClaimRequest } from '../claim/claim.js';
import type { Attempt } from '../execute/attempt.js';
import type { Delivery } from '../intake/delivery.js';
import type { Identified } from '../intake/identify.js';
import type { JobEventSubject } from '../observe/job-events.js';
import { repeatableForMs } from '../operation/effect.js';

/** One delivery of one operation, as the steps around its handler see it. */
export interface RunContext {
  readonly delivery: Delivery;
  readonly identified: Identified;
  readonly attempt: Attempt;
  /** The job as the handler sees it: `data` is the payload. */
  readonly view: Job;
}

/** What events tell about the run. */
export function subjectOf({ delivery: { job }, identified }: RunContext): JobEventSubject {
  return {
    queue: job.queueName,
    jobName: job.name,
    jobId: job.id ?? '',
    tenantId: identified.tenantId,
    operationKey: identified.operationKey,
  };
}

/** What the run asks of the ledger. */
export function claimRequestOf({
  delivery: { job, processor, workerId },
  identified,
}: RunContext): ClaimRequest {
  return {
    tenantId: identified.tenantId,
    operationKey: identified.operationKey,
    queue: job.queueName,
    jobName: job.name,
    jobId: job.id ?? '',
    fingerprint: identified.fingerprint,
    effect: processor.effect,
    workerId,
    leaseMs: processor.leaseMs,
    repeatableMs: repeatableForMs(processor.effect, processor.keyRetentionMs),
    budgetMs: processor.timeBudgetMs,
    deadline: identified.deadline ?? null,
  };
}

/** The payload as JSON text: a dead letter's evidence. */
export function payloadText({ identified }: RunContext): string {
  return JSON.stringify(identified.payload);
}
