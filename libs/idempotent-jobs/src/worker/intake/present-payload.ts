import type { Job } from 'bullmq';
import { UsageError } from '../../operation/errors.js';

/**
 * Turns a job into what its handler sees: `data` becomes the validated payload. BullMQ writes a job's data only when it
 * is added or updated, so the stored envelope stays. Updating it is refused, because it would make another operation of
 * the job.
 */
export function presentPayload(job: Job, payload: unknown): void {
  job.data = payload;
  job.updateData = refuseUpdate;
}

/** Removes a job's data from BullMQ. For jobs that are never to be run. */
export async function removePayload(job: Job): Promise<void> {
  const { updateData } = Object.getPrototypeOf(job) as Pick<Job, 'updateData'>;
  await updateData.call(job, {});
}

function refuseUpdate(): Promise<never> {
  return Promise.reject(
    new UsageError(
      'job.updateData() would turn this operation into another one: its payload is part of its identity. Keep progress with job.updateProgress(), or in your own tables.',
    ),
  );
}
