import { Injectable } from '@nestjs/common';
import { hash } from 'node:crypto';
import { Due } from '../../producer/due.js';
import { type ReceivedJob, removePayload } from '../intake/delivery.js';
import type { Identified, Unidentified } from '../identify/identify.js';
import { JobEvents } from '../../events/job-events.js';
import { IdempotentJobsError, OperationConflictError } from '../../operation/errors.js';
import { messageOf } from '../../operation/thrown.js';
import { jobSubjectOf } from '../../operation/job.js';
import { payloadTextOf } from '../../operation/json.js';
import { Encryption, isEncrypted, letterBinding } from '../../ledger/encryption/encryption.js';
import type { Ack } from './acknowledge.js';
import type { DeadLetterReason } from '../../operation/reasons.js';
import { LetterStore } from '../../dead-letters/letter.store.js';

/**
 * Writes dead letters for deliveries that are given up while no operation is: the job has none, the ledger has
 * forgotten it, or its key belongs to another request.
 */
@Injectable()
export class DeadLetterWriter {
  constructor(
    private readonly letters: LetterStore,
    private readonly events: JobEvents,
    private readonly encryption: Encryption,
    private readonly due: Due,
  ) {}

  /** The job has no operation that it could be run for. */
  async ofUnidentified(
    received: ReceivedJob,
    { reason, error }: Pick<Unidentified, 'reason' | 'error'>,
  ): Promise<Ack> {
    const { job } = received;
    const payload = evidenceOf(job.data);
    const fingerprint = hash('sha256', `${job.timestamp}:${payload}`, 'hex');
    return this.#writeLetter(received, undefined, reason, error, payload, fingerprint);
  }

  /** The job's key belongs to another request. */
  async ofConflict(received: ReceivedJob, identified: Identified): Promise<Ack> {
    const error = new OperationConflictError(identified.tenantId, identified.operationKey);
    return this.#writeIdentified(received, identified, 'idempotency_conflict', error);
  }

  /**
   * The job is older than the ledger's memory, so it is unknown whether its operation has run. If it was put on the
   * queue from a row that was erased with its tenant, the tenant's data is kept neither in the letter nor in BullMQ.
   */
  async ofExpired(received: ReceivedJob, identified: Identified, error: Error): Promise<Ack> {
    const { tenantId, rowMs } = identified;
    if (rowMs !== undefined && (await this.letters.wasErased(tenantId, rowMs)))
      return this.#writeErased(received);
    return this.#writeIdentified(received, identified, 'expired', error);
  }

  async #writeErased(received: ReceivedJob): Promise<Ack> {
    const { job } = received;
    await removePayload(job);
    const error = new JobOfErasedTenantError(job.queueName, job.id ?? '');
    return this.#writeLetter(
      received,
      undefined,
      'expired',
      error,
      undefined,
      hash('sha256', job.id ?? '', 'hex'),
    );
  }

  #writeIdentified(
    received: ReceivedJob,
    identified: Identified,
    reason: DeadLetterReason,
    error: Error,
  ): Promise<Ack> {
    const payload = payloadTextOf(identified.canonical);
    return this.#writeLetter(received, identified, reason, error, payload, identified.fingerprint);
  }

  async #writeLetter(
    { job, runId }: ReceivedJob,
    identified: Identified | undefined,
    reason: DeadLetterReason,
    error: Error,
    payload: string | undefined,
    fingerprint: string,
  ): Promise<Ack> {
    const subject = jobSubjectOf(job);
    const isNew = await this.letters.write({
      ...subject,
      identity: identified,
      reason,
      payload: payload && this.encryption.encrypt(payload, letterBinding({ ...subject, ...identified })),
      fingerprint,
      error,
      runId,
    });
    const whose = identified && { tenantId: identified.tenantId, operationKey: identified.operationKey };
    if (!isNew) {
      this.events.emit({ kind: 'refused', ...subject, ...whose, reason: 'dead_lettered' });
      return { kind: 'fail', error };
    }
    this.due.wake();
    this.events.emit({
      kind: 'dead',
      ...subject,
      ...whose,
      attempt: 0,
      reason,
      failure: 'permanent',
      failureCode: reason,
      error: messageOf(error),
      durationMs: 0,
    });
    return { kind: 'fail', error };
  }
}

/** The job arrived after its tenant was erased. Says nothing about the tenant. */
class JobOfErasedTenantError extends IdempotentJobsError {
  constructor(queue: string, jobId: string) {
    super(
      'JOB_EXPIRED',
      `Job ${jobId} of queue "${queue}" was put there from a row that was erased with its tenant. It was not run, and its data was removed. Discard its letter.`,
      { data: { queue, jobId } },
    );
  }
}

/**
 * The job's data as JSON text. Undefined when JSON cannot write it (nested deeper than the stack), which must not lose
 * the letter, and when it looks like encrypted data, which could never be read again.
 */
function evidenceOf(data: unknown): string | undefined {
  try {
    return isEncrypted(data) ? undefined : JSON.stringify(data);
  } catch {
    return undefined;
  }
}
