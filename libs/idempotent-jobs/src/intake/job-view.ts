import type { Job } from 'bullmq';
import { UsageError } from '../operation/errors.js';

/**
 * The job as a handler sees it: `data` is the validated payload. Everything else is the job's own. The job itself
 * keeps its envelope, so that nothing BullMQ does with it loses the operation's identity.
 */
export function viewJob(job: Job, payload: unknown): Job {
  return Object.create(job, {
    data: { value: payload, writable: true, enumerable: true },
    updateData: { value: refuseUpdate },
  }) as Job;
}

function refuseUpdate(): Promise<never> {
  return Promise.reject(
    new UsageError(
      'job.updateData() would turn this operation into another one: its payload is part of its identity. Keep progress with job.updateProgress(), or in your own tables.',
    ),
  );
}
