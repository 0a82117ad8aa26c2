import { DelayedError, type Job } from 'bullmq';
import { provenanceOf } from '../../producer/envelope.js';

/**
 * For a plain BullMQ worker beside idempotent ones, while a queue is migrated or rolled back. Puts a job of
 * `IdempotentQueue` back for a second, so that an idempotent worker takes it, and throws what BullMQ must be told: the
 * plain handler would find an envelope in place of the payload. Does nothing for any other job. Spends no attempt.
 *
 * ```ts
 * async process(job: Job, token?: string) {
 *   await putBackOperation(job, token);
 *   …
 * }
 * ```
 */
export async function putBackOperation(job: Job, token?: string): Promise<void> {
  const provenance = provenanceOf(job);
  // An envelope whose id does not fit is for idempotent workers to refuse.
  const isOperation =
    provenance.kind === 'ours' || (provenance.kind === 'unconfirmed' && provenance.hasDerivedId);
  if (!isOperation) return;
  await job.moveToDelayed(Date.now() + PUT_BACK_MS, token);
  throw new DelayedError();
}

/** Not 0: while no idempotent worker runs, the job would come back without a pause. */
const PUT_BACK_MS = 1_000;
