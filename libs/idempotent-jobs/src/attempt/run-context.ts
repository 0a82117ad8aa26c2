import type { ClaimRequest } from '../claim/claim.js';
import type { Attempt } from '../execute/attempt.js';
import type { Delivery } from '../intake/delivery.js';
import type { Identified } from '../intake/identify.js';
import type { JobEventSubject } from '../observe/job-events.js';
import { payloadTextOf } from '../operation/fingerprint.js';

/** One delivery of one operation, as the steps around its handler see it. */
export interface RunContext {
  readonly delivery: Delivery;
  readonly identified: Identified;
  readonly attempt: Attempt;
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
    terms: processor.terms,
    jobName: job.name,
    jobId: job.id ?? '',
    fingerprint: identified.fingerprint,
    workerId,
    deadline: identified.deadline ?? null,
    availableAt: job.timestamp + (job.opts.delay ?? 0),
  };
}

/** The payload as it was asked for, as JSON text: a dead letter's evidence. */
export function payloadText({ identified }: RunContext): string {
  return payloadTextOf(identified.canonical);
}
