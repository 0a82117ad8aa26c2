import { Inject, Injectable } from '@nestjs/common';
import { isA, messageOf } from '../../operation/thrown.js';
import type { Job } from 'bullmq';
import { readBundle } from '../../producer/bundle.js';
import { type Envelope, type Provenance, provenanceOf } from '../../producer/envelope.js';
import type { DeadLetterReason } from '../../operation/reasons.js';
import { InvalidIdentityError, RecordUnreadableError, TenantMismatchError } from '../../operation/errors.js';
import { Encryption, isEncrypted, payloadBinding } from '../../ledger/encryption/encryption.js';
import { canonicalRequest, fingerprintOf } from '../../operation/json.js';
import { deadlineProblem, jobIdProblem, storableJobId } from '../../operation/job.js';
import { assertIdentity, jobNameProblem, type OperationIdentity } from '../../operation/identity.js';
import { Signer } from '../../producer/signer.js';

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

/** Finds out which operation a job belongs to. Trusts the job no further than it can check. */
@Injectable()
export class JobIdentifier {
  constructor(
    @Inject(Encryption) private readonly encryption: Pick<Encryption, 'open'>,
    @Inject(Signer) private readonly signer: Pick<Signer, 'verify' | 'isOn'>,
  ) {}

  /** @throws RecordUnreadableError if its payload is encrypted and cannot be read here: not now, perhaps later */
  identify(job: Job, provenance: Provenance, rule: Identify | undefined): Identified | Unidentified {
    try {
      return this.#identify(job, provenance, rule);
    } catch (cause) {
      if (isA(cause, RecordUnreadableError)) throw cause;
      // The result depends on the job alone, so every other delivery would end in the same way.
      return refuse('payload_invalid', `${named(job)} cannot be read: ${messageOf(cause)}`, cause);
    }
  }

  #identify(job: Job, provenance: Provenance, rule: Identify | undefined): Identified | Unidentified {
    const problem = jobNameProblem(job.name) ?? jobIdProblem(job.id ?? '');
    if (problem !== undefined) return refuse('payload_invalid', `${named(job)}: ${problem}`);
    switch (provenance.kind) {
      case 'ours':
        return this.#identifyOurs(job, provenance);
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

  #identifyOurs(job: Job, { envelope, identity, dueAt }: Ours): Identified | Unidentified {
    const { operation, signature } = envelope;
    const deadline = operation.deadlineAt === undefined ? undefined : readDate(operation.deadlineAt);
    const problem = deadline && deadlineProblem(deadline);
    if (problem !== undefined) return refuse('payload_invalid', `${named(job)}: its deadline ${problem}.`);
    const opened = this.#open(job, envelope);
    if (opened.kind === 'refused') return opened;
    const found = identified(identity, job, opened.payload, {
      availableAt: dueAt?.getTime() ?? availableAtOf(job),
      rowMs: operation.row === undefined ? undefined : timeOf(operation.row),
      deadline,
      ...tracesOf(operation),
    });
    if (found.kind === 'refused') return found;
    const refusal = this.#refusalOf(job, envelope, found.fingerprint);
    if (refusal !== undefined) return refusal;
    // Only a verified signature makes its time trustworthy.
    const isVouchedFor = this.signer.isOn && signature !== undefined;
    return dueAt === undefined && isVouchedFor ? { ...found, availableAt: timeOf(signature.at) } : found;
  }

  /**
   * Decrypts the payload. If that fails and jobs are signed, the signature is checked by the fingerprint that the job
   * names: only a job that was made with a signing key is worth waiting for an encryption key.
   */
  #open(job: Job, envelope: Envelope): { readonly kind: 'opened'; readonly payload: unknown } | Unidentified {
    const { operation, payload } = envelope;
    try {
      // A schedule's payload is encrypted once, for all of its iterations.
      return { kind: 'opened', payload: this.encryption.open(payload, payloadBinding(operation)) };
    } catch (error) {
      if (!isA(error, RecordUnreadableError) || !this.signer.isOn) throw error;
      const refusal = this.#refusalOf(job, envelope, operation.fingerprint);
      if (refusal !== undefined) return refusal;
      // No key will ever open it.
      if (error.reason === 'damaged' || error.data['keyId'] === undefined)
        return { kind: 'refused', reason: 'payload_invalid', error };
      throw error;
    }
  }

  /** Why the signature of a job is not accepted. Undefined when it is. */
  #refusalOf(job: Job, { operation, signature }: Envelope, fingerprint: string): Unidentified | undefined {
    const claims = { queue: job.queueName, jobName: job.name, fingerprint, operation };
    const verdict = this.signer.verify(signature, claims);
    return verdict === 'accepted' ? undefined : refuseSignature(job, operation, verdict);
  }
}

type Ours = Extract<Provenance, { kind: 'ours' }>;

/** The tenants of a job's operations, as far as they are known without running the job: to find the jobs of a tenant. */
export function tenantsOfJob(job: Job, rule: Identify | undefined): readonly (string | undefined)[] {
  return readBundle(job)?.map(tenantOfBundled) ?? [tenantOfJob(job, rule)];
}

export function tenantOfBundled(job: Pick<Job, 'id' | 'data'>): string | undefined {
  const provenance = provenanceOf(job);
  return provenance.kind === 'ours' ? provenance.identity.tenantId : undefined;
}

function tenantOfJob(job: Job, rule: Identify | undefined): string | undefined {
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
      `identify() could not name the operation of job ${shownId(job)}: ${messageOf(cause)}`,
      cause,
    );
  }
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
  return refuseTenant(job, message);
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
  return refuseTenant(job, message);
}

function refuseTenant({ id }: Job, message: string): Unidentified {
  const error = new TenantMismatchError(message, { jobId: id });
  return { kind: 'refused', reason: 'tenant_mismatch', error };
}

function named(job: Job): string {
  return `Job ${shownId(job)}`;
}

function shownId({ id = '', queueName }: Job): string {
  return `${storableJobId(id)} of queue "${queueName}"`;
}

/** What is known of an operation besides its request. */
type Circumstances = Pick<Identified, 'availableAt' | 'rowMs' | 'deadline' | 'trace' | 'parentTrace'>;

/** The circumstances of an operation that {@link IdempotentQueue} did not enqueue. */
export const PLAIN = { rowMs: undefined, deadline: undefined, trace: undefined, parentTrace: undefined };

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
      `The payload of job ${shownId(job)} cannot be read: ${messageOf(cause)}`,
      cause,
    );
  }
}

function refuse(reason: DeadLetterReason, message: string, cause?: unknown): Unidentified {
  const error = new InvalidIdentityError(message);
  if (cause !== undefined) error.cause = cause;
  return { kind: 'refused', reason, error };
}

/**
 * When a job could first run, in ms since 1970 by its producer's clock: from it follows whether the ledger may have
 * forgotten the operation. A producer may set it, so an invalid time counts as the oldest; the ledger judges times in
 * the future.
 *
 * A delay may have been cut short (`promote()`): a job that is delivered has no delay left.
 */
function availableAtOf({ timestamp, opts }: Pick<Job, 'timestamp' | 'opts'>): number {
  const addedAt = timeOf(timestamp);
  const delayMs = typeof opts?.delay === 'number' && opts.delay > 0 ? opts.delay : 0;
  return Math.max(addedAt, Math.min(addedAt + delayMs, Date.now()));
}

/** A producer's time, in ms since 1970. An invalid one counts as the oldest, 0. */
function timeOf(timestamp: unknown): number {
  return typeof timestamp === 'number' && timestamp >= 0 && timestamp <= MAX_TIME_MS ? timestamp : 0;
}

/** The latest time that a Date can hold. */
const MAX_TIME_MS = 8.64e15;
