import { DelayedError, type Job } from 'bullmq';
import { provenanceOf } from '../../producer/provenance.js';

/**
 * For a plain BullMQ worker beside idempotent ones, while a queue is migrated or rolled back: puts a job of
 * `IdempotentQueue` back for a second, so that an idempotent worker takes it, and throws what BullMQ must be told. The
 * handler would find an envelope in place of its payload. Of any other job it does nothing. Spends no attempt.
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

/** Not at once: while no idempotent worker runs, the job would go round and round. */
const PUT_BACK_MS = 1_000;
