import { messageOf } from '../../operation/message-of.js';
import type { Job } from 'bullmq';
import type { Envelope } from '../../producer/envelope.js';
import { type Provenance, provenanceOf } from '../../producer/provenance.js';
import type { DeadLetterReason } from '../../operation/reasons.js';
import { InvalidIdentityError, RecordUnreadableError, TenantMismatchError } from '../../operation/errors.js';
import { isA } from '../../operation/thrown.js';
import { payloadBinding, isEncrypted, type Encryption } from '../../ledger/encryption/encryption.js';
import { canonicalRequest, fingerprintOf } from '../../operation/fingerprint.js';
import { deadlineProblem } from '../../operation/deadline.js';
import { assertIdentity, jobNameProblem, type OperationIdentity } from '../../operation/identity.js';
import type { Signer } from '../../producer/signer.js';
import { availableAtOf, timeOf } from './available-at.js';
import { jobIdProblem, storableJobId } from '../../operation/job-id.js';

/**
 * Names the operation of a job, for producers that write plain data. If it gives undefined or throws, the job has no
 * operation.
 */
export type Identify = (job: Job) => { tenantId: string; operationKey: string } | undefined;

/** A job whose operation is known. */
export interface Identified extends OperationIdentity {
  readonly kind: 'identified';
  /** The request as text. The handler may change its payload; this evidence must not change with it. */
  readonly canonical: string;
  readonly fingerprint: string;
  readonly payload: unknown;
  /** When its job could first run, in ms since 1970 by its producer's clock. */
  readonly availableAt: number;
  /** When the row that its job was put on the queue from was written, in ms since 1970. Undefined when there was no row. */
  readonly rowMs: number | undefined;
  readonly deadline: Date | undefined;
  /** The trace context it was enqueued with, from `forRoot({ tracing })` or `traceContext`. */
  readonly trace: unknown;
  /** The trace that its attempts belong to. Undefined when each attempt begins its own. */
  readonly parentTrace: unknown;
}

/** A job without an operation that it could be run for. */
export interface Unidentified {
  readonly kind: 'refused';
  readonly reason: DeadLetterReason;
  readonly error: Error;
}

/**
 * Finds out which operation a job belongs to. Trusts the job no further than it can check.
 *
 * @throws RecordUnreadableError if its payload is encrypted and cannot be read here: not now, perhaps later
 */
export function identify(
  job: Job,
  provenance: Provenance,
  rule: Identify | undefined,
  encryption: Pick<Encryption, 'open'>,
  signer: Pick<Signer, 'verify' | 'isOn'>,
): Identified | Unidentified {
  try {
    return identifyBy(job, provenance, rule, encryption, signer);
  } catch (cause) {
    if (isA(cause, RecordUnreadableError)) throw cause;
    // The result depends on the job alone, so every other delivery would end in the same way.
    return refuse('payload_invalid', `${named(job)} cannot be read: ${messageOf(cause)}`, cause);
  }
}

function identifyBy(
  job: Job,
  provenance: Provenance,
  rule: Identify | undefined,
  encryption: Pick<Encryption, 'open'>,
  signer: Pick<Signer, 'verify' | 'isOn'>,
): Identified | Unidentified {
  const problem = jobNameProblem(job.name) ?? jobIdProblem(job.id ?? '');
  if (problem !== undefined) return refuse('payload_invalid', `${named(job)}: ${problem}`);
  switch (provenance.kind) {
    case 'ours':
      return identifyOurs(job, provenance, encryption, signer);
    case 'unconfirmed':
      // With an id that its producer chose it is that producer's data, whatever it looks like.
      return rule === undefined || provenance.hasDerivedId
        ? refuseUnconfirmed(job, provenance.envelope)
        : identifyPlain(job, rule);
    case 'plain':
      return identifyPlain(job, rule);
    default:
      return provenance satisfies never;
  }
}

/** The tenant of a job, as far as it is known without running the job: to find the jobs of a tenant. */
export function tenantOfJob(job: Job, rule: Identify | undefined): string | undefined {
  const provenance = provenanceOf(job);
  if (provenance.kind === 'ours') return provenance.identity.tenantId;
  try {
    return rule?.(job)?.tenantId;
  } catch {
    return undefined;
  }
}

function identifyPlain(job: Job, rule: Identify | undefined): Identified | Unidentified {
  if (rule === undefined) {
    return refuse(
      'identity_missing',
      `${named(job)} has no operation. Enqueue it through IdempotentQueue, or tell the processor how to identify such jobs: identify: (job) => ({ tenantId, operationKey }).`,
    );
  }
  // Other producers cannot have encrypted it. It would be taken for encrypted later, and could never be read again.
  if (isEncrypted(job.data))
    return refuse(
      'payload_invalid',
      `${named(job)} has a property "$encrypted", by which the ledger tells what it has encrypted.`,
    );
  try {
    const identity = assertIdentity(rule(job) ?? { tenantId: undefined, operationKey: undefined });
    return identified(identity, job, job.data, { ...PLAIN, availableAt: availableAtOf(job) });
  } catch (cause) {
    return refuse(
      'identity_missing',
      `identify() could not name the operation of job ${storableJobId(job.id ?? '')} of queue "${job.queueName}": ${messageOf(cause)}`,
      cause,
    );
  }
}

function identifyOurs(
  job: Job,
  provenance: Ours,
  encryption: Pick<Encryption, 'open'>,
  signer: Pick<Signer, 'verify' | 'isOn'>,
): Identified | Unidentified {
  const { envelope, identity, dueAt } = provenance;
  const { operation, signature } = envelope;
  const deadline = operation.deadlineAt === undefined ? undefined : readDate(operation.deadlineAt);
  const problem = deadline && deadlineProblem(deadline);
  if (problem !== undefined) return refuse('payload_invalid', `${named(job)}: its deadline ${problem}.`);
  const opened = openPayload(job, envelope, encryption, signer);
  if (opened.kind === 'refused') return opened;
  const found = identified(identity, job, opened.payload, {
    availableAt: dueAt?.getTime() ?? availableAtOf(job),
    rowMs: operation.row === undefined ? undefined : timeOf(operation.row),
    deadline,
    ...tracesOf(operation),
  });
  if (found.kind === 'refused') return found;
  const refusal = refusalOf(job, envelope, found.fingerprint, signer);
  if (refusal !== undefined) return refusal;
  // Only a verified signature makes its time trustworthy.
  const isVouchedFor = signer.isOn && signature !== undefined;
  return dueAt === undefined && isVouchedFor ? { ...found, availableAt: timeOf(signature.at) } : found;
}

type Ours = Extract<Provenance, { kind: 'ours' }>;

/**
 * Decrypts the payload. If that fails and jobs are signed, the signature is checked by the fingerprint that the job
 * names: only a job that was made with a signing key is worth waiting for an encryption key.
 */
function openPayload(
  job: Job,
  envelope: Envelope,
  encryption: Pick<Encryption, 'open'>,
  signer: Pick<Signer, 'verify' | 'isOn'>,
): { readonly kind: 'opened'; readonly payload: unknown } | Unidentified {
  const { operation, payload } = envelope;
  try {
    // A schedule's payload is encrypted once, for all of its iterations.
    return { kind: 'opened', payload: encryption.open(payload, payloadBinding(operation)) };
  } catch (error) {
    if (!isA(error, RecordUnreadableError) || !signer.isOn) throw error;
    const refusal = refusalOf(job, envelope, operation.fingerprint, signer);
    if (refusal !== undefined) return refusal;
    // No key will ever open it.
    if (error.reason === 'damaged' || error.data['keyId'] === undefined)
      return { kind: 'refused', reason: 'payload_invalid', error };
    throw error;
  }
}

/** Why the signature of a job is not accepted. Undefined when it is. */
function refusalOf(
  job: Job,
  { operation, signature }: Envelope,
  fingerprint: string,
  signer: Pick<Signer, 'verify'>,
): Unidentified | undefined {
  const verdict = signer.verify(signature, {
    queue: job.queueName,
    jobName: job.name,
    fingerprint,
    operation,
  });
  return verdict === 'accepted' ? undefined : refuseSignature(job, operation, verdict);
}

/** The job was written without a signing key, or changed since. */
function refuseSignature(
  job: Job,
  { tenantId }: OperationIdentity,
  verdict: 'unsigned' | 'forged',
): Unidentified {
  if (verdict === 'unsigned')
    return refuse(
      'identity_missing',
      `${named(job)} is not signed. Give every process that enqueues the keys (forRoot({ signing })), and accept unsigned jobs until theirs are through: signing.acceptUnsignedUntil.`,
    );
  const message = `${named(job)} names tenant "${tenantId}", but its signature is none of that job, or of a key that is not configured here: it was forged, changed, or moved from elsewhere. If the key is missing, add it to forRoot({ signing: { keys } }).`;
  return {
    kind: 'refused',
    reason: 'tenant_mismatch',
    error: new TenantMismatchError(message, { jobId: job.id }),
  };
}

function readDate(text: unknown): Date {
  return new Date(typeof text === 'string' ? text : Number.NaN);
}

/** The job claims to be an operation of the library, but its id was not made from its tenant and key. */
function refuseUnconfirmed(job: Job, { operation }: Envelope): Unidentified {
  try {
    assertIdentity(operation);
  } catch (cause) {
    return refuse('identity_missing', `${named(job)} has no valid operation: ${messageOf(cause)}`, cause);
  }
  const message = `${named(job)} names tenant "${operation.tenantId}", which is not the tenant it was enqueued for: its id was not made from that tenant and key. Jobs of operations come from IdempotentQueue alone, under the ids that it gives them.`;
  const error = new TenantMismatchError(message, { jobId: job.id });
  return { kind: 'refused', reason: 'tenant_mismatch', error };
}

function named(job: Job): string {
  return `Job ${storableJobId(job.id ?? '')} of queue "${job.queueName}"`;
}

/** What is known of an operation besides its request. */
type Circumstances = Pick<Identified, 'availableAt' | 'rowMs' | 'deadline' | 'trace' | 'parentTrace'>;

const PLAIN = { rowMs: undefined, deadline: undefined, trace: undefined, parentTrace: undefined };

/** A schedule outlives the trace that it was made in, and a redrive comes when the first trace is long over. */
function tracesOf({
  trace,
  redriveTrace,
  isSchedule,
}: Envelope['operation']): Pick<Identified, 'trace' | 'parentTrace'> {
  return { trace, parentTrace: isSchedule === true ? undefined : (redriveTrace ?? trace) };
}

function identified(
  identity: OperationIdentity,
  job: Job,
  payload: unknown,
  circumstances: Circumstances,
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
      ...circumstances,
    };
  } catch (cause) {
    // Most likely the payload is nested deeper than the stack: what it asks for cannot be told.
    return refuse(
      'payload_invalid',
      `The payload of job ${storableJobId(job.id ?? '')} of queue "${job.queueName}" cannot be read: ${messageOf(cause)}`,
      cause,
    );
  }
}

function refuse(reason: DeadLetterReason, message: string, cause?: unknown): Unidentified {
  const error = new InvalidIdentityError(message);
  if (cause !== undefined) error.cause = cause;
  return { kind: 'refused', reason, error };
}
