import { expect } from 'vitest';
import { type Job, type Queue, UnrecoverableError, Worker } from 'bullmq';
import { eventually } from './eventually.js';
import type { Place } from './place.js';

/** Has BullMQ fail the next job of a queue by itself, for a worker that has died under it, while nobody listens. */
export async function failStalled(place: Place, queue: Queue): Promise<void> {
  const worker = new Worker(queue.name, null, {
    connection: place.connection,
    prefix: place.prefix,
    lockDuration: 100,
    stalledInterval: 100,
    maxStalledCount: 0,
  });
  try {
    const next = (): Promise<Job> =>
      eventually(
        () => worker.getNextJob('token', { block: false }),
        (job) => expect(job).toBeDefined(),
      );
    const died = await next();
    await worker.startStalledCheckTimer();
    await eventually(
      () => queue.getJob(died.id as string),
      (job) => expect(job?.deferredFailure).toBeDefined(),
    );
    const failed = await next();
    await failed.moveToFailed(new UnrecoverableError(failed.deferredFailure), 'token', false);
  } finally {
    await worker.close();
  }
}
