import { messageOf } from '../operation/message-of.js';
import type { Job } from 'bullmq';
import { type Envelope, isEnvelope } from '../enqueue/envelope.js';
import { iterationOf, iterationTimeOf, schedulerIdOf } from '../enqueue/schedule.js';
import type { DeadLetterReason } from '../dead-letter/letter.js';
import { InvalidIdentityError, TenantMismatchError } from '../operation/errors.js';
import { payloadBinding } from '../sealing/binding.js';
import { isSealed } from '../sealing/sealed.js';
import type { Sealer } from '../sealing/sealer.js';
import { canonicalRequest, fingerprintOf } from '../operation/fingerprint.js';
import { assertIdentity, jobIdOf, jobNameProblem, type OperationIdentity } from '../operation/identity.js';

/** Says who the operation of a job is, for producers that write plain data. Undefined or a throw: nobody knows. */
export type Identify = (job: Job) => { tenantId: string; operationKey: string } | undefined;

/** A job whose operation is known. */
export interface Identified extends OperationIdentity {
  readonly kind: 'identified';
  /** The request as text: the handler may change its payload, the evidence must not change with it. */
  readonly canonical: string;
  readonly fingerprint: string;
  readonly payload: unknown;
  readonly deadline: Date | undefined;
  /** What was handed on when it was enqueued: `forRoot({ tracing })`, or `traceContext`. */
  readonly trace: unknown;
  /** The trace that its attempts belong to; undefined: each to one of its own. */
  readonly parentTrace: unknown;
}

/** A job that cannot be run for anybody. */
export interface Unidentified {
  readonly kind: 'refused';
  readonly reason: DeadLetterReason;
  readonly error: Error;
}

/**
 * Finds out whose operation a job is. Trusts the job no further than it can check.
 *
 * @throws RecordUnreadableError if its payload is encrypted and cannot be read here: not now, perhaps later
 */
export function identify(
  job: Job,
  rule: Identify | undefined,
  sealer: Pick<Sealer, 'open'>,
): Identified | Unidentified {
  const nameProblem = jobNameProblem(job.name);
  if (nameProblem !== undefined)
    return refuse('payload_invalid', `Job ${job.id} of queue "${job.queueName}": ${nameProblem}`);
  if (isEnvelope(job.data)) return identifyEnvelope(job, job.data, sealer);
  if (rule === undefined) {
    return refuse(
      'identity_missing',
      `Job ${job.id} of queue "${job.queueName}" has no operation. Enqueue it through IdempotentQueue, or tell the processor how to identify such jobs: identify: (job) => ({ tenantId, operationKey }).`,
    );
  }
  // Other producers cannot have sealed it: as evidence, or as a payload, it could never be read again.
  if (isSealed(job.data))
    return refuse(
      'payload_invalid',
      `Job ${job.id} of queue "${job.queueName}" has a property "$sealed", by which the ledger tells what it has encrypted.`,
    );
  try {
    const identity = assertIdentity(rule(job) ?? { tenantId: undefined, operationKey: undefined });
    return identified(identity, job, job.data, undefined, NO_TRACES);
  } catch (cause) {
    return refuse(
      'identity_missing',
      `identify() could not name the operation of job ${job.id} of queue "${job.queueName}": ${messageOf(cause)}`,
      cause,
    );
  }
}

/** Whose a job says it is, checked or not: to find the jobs of a tenant. */
export function tenantOfJob(job: Job, rule: Identify | undefined): string | undefined {
  try {
    return isEnvelope(job.data) ? job.data.operation.tenantId : rule?.(job)?.tenantId;
  } catch {
    return undefined;
  }
}

function identifyEnvelope(
  job: Job,
  { operation, payload }: Envelope,
  sealer: Pick<Sealer, 'open'>,
): Identified | Unidentified {
  try {
    assertIdentity(operation);
  } catch (cause) {
    return refuse(
      'identity_missing',
      `Job ${job.id} of queue "${job.queueName}" has no valid operation: ${messageOf(cause)}`,
      cause,
    );
  }
  const named = operation.isSchedule === true ? iterationIn(job, operation) : ownIn(job, operation);
  if (named === undefined) {
    const message = `Job ${job.id} of queue "${job.queueName}" names tenant "${operation.tenantId}", which is not the tenant it was enqueued for.`;
    return {
      kind: 'refused',
      reason: 'tenant_mismatch',
      error: new TenantMismatchError(message, { jobId: job.id }),
    };
  }
  const deadline = typeof operation.deadlineAt === 'string' ? new Date(operation.deadlineAt) : undefined;
  return identified(
    named,
    job,
    // A schedule's payload was sealed once, for all of its iterations.
    sealer.open(payload, payloadBinding(operation)),
    Number.isNaN(deadline?.getTime()) ? undefined : deadline,
    tracesOf(operation),
  );
}

const NO_TRACES = { trace: undefined, parentTrace: undefined };

/** A schedule outlives whoever made it, and a redrive comes when the first trace is long over. */
function tracesOf({
  trace,
  redriveTrace,
  isSchedule,
}: Envelope['operation']): Pick<Identified, 'trace' | 'parentTrace'> {
  return { trace, parentTrace: isSchedule === true ? undefined : (redriveTrace ?? trace) };
}

/**
 * The operation that a job names; undefined: its id is another's. The id was derived from tenant and key when the
 * operation was accepted, and whoever wrote another tenant into the data since did not change it with that. Redriven
 * jobs carry a suffix; ids of another kind tell nothing.
 */
function ownIn({ id = '' }: Job, operation: OperationIdentity): OperationIdentity | undefined {
  const isDerived = id.startsWith('op-') || id.startsWith('repeat:op-');
  return isDerived && !id.startsWith(jobIdOf(operation)) ? undefined : operation;
}

/** The operation of one iteration of a schedule; undefined: the job's id is not of that schedule. */
function iterationIn(job: Job, schedule: OperationIdentity): OperationIdentity | undefined {
  const dueAt = iterationTimeOf(job.id, schedulerIdOf(schedule));
  return dueAt && iterationOf(schedule, dueAt);
}

function identified(
  identity: OperationIdentity,
  job: Job,
  payload: unknown,
  deadline: Date | undefined,
  traces: Pick<Identified, 'trace' | 'parentTrace'>,
): Identified | Unidentified {
  const { tenantId, operationKey } = identity;
  try {
    const canonical = canonicalRequest(identity, job.name, payload);
    const fingerprint = fingerprintOf(canonical);
    return {
      kind: 'identified',
      tenantId,
      operationKey,
      canonical,
      fingerprint,
      payload,
      deadline,
      ...traces,
    };
  } catch (cause) {
    // Nested deeper than the stack, most likely: nothing can be said about what it asks for.
    return refuse(
      'payload_invalid',
      `The payload of job ${job.id} of queue "${job.queueName}" cannot be read: ${messageOf(cause)}`,
      cause,
    );
  }
}

function refuse(reason: DeadLetterReason, message: string, cause?: unknown): Unidentified {
  const error = new InvalidIdentityError(message);
  if (cause !== undefined) error.cause = cause;
  return { kind: 'refused', reason, error };
}
