import type { Job } from 'bullmq';
import { UsageError } from '../../operation/errors.js';

/**
 * Turns a job into what its handler shall see: `data` is the validated payload. BullMQ writes a job's data only when it
 * is added or updated, so the envelope it was read with stays what is stored; updating it is refused, because it would
 * make another operation of the job.
 */
export function presentPayload(job: Job, payload: unknown): void {
  job.data = payload;
  job.updateData = refuseUpdate;
}

/** Leaves nothing of a job's data in BullMQ. Of a job that is never to be run. */
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
