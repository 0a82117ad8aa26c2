import { expect } from 'vitest';
import { type Job, type Queue, UnrecoverableError, Worker, type WorkerOptions } from 'bullmq';
import { eventually } from './eventually.js';
import type { Place } from './place.js';

/** A worker without the library and without a handler, by which a test takes jobs one by one. */
export interface Taker {
  readonly worker: Worker;
  /** Waits for one. */
  next(): Promise<Job>;
  close(): Promise<void>;
}

export function takerOf(place: Place, queue: string, options: Partial<WorkerOptions> = {}): Taker {
  const worker = new Worker(queue, null, {
    connection: place.connection,
    prefix: place.prefix,
    ...options,
  });
  return {
    worker,
    next: () =>
      eventually(
        () => worker.getNextJob('token', { block: false }),
        (job) => expect(job).toBeDefined(),
      ),
    close: () => worker.close(),
  };
}

/** Has BullMQ fail the next job of a queue by itself, for a worker that has died under it, while nobody listens. */
export async function failStalled(place: Place, queue: Queue): Promise<void> {
  const dying = takerOf(place, queue.name, { lockDuration: 100, stalledInterval: 100, maxStalledCount: 0 });
  // Its locks outlast any machine's slowness.
  const failing = takerOf(place, queue.name, { lockDuration: 600_000 });
  try {
    const died = await dying.next();
    await dying.worker.startStalledCheckTimer();
    await eventually(
      () => queue.getJob(died.id as string),
      (job) => expect(job?.deferredFailure).toBeDefined(),
    );
    let failed = await failing.next();
    while (failed.deferredFailure === undefined) {
      // It waits behind others.
      await failed.moveToDelayed(Date.now() + 500, 'token');
      failed = await failing.next();
    }
    await failed.moveToFailed(new UnrecoverableError(failed.deferredFailure), 'token', false);
  } finally {
    await Promise.all([dying.close(), failing.close()]);
  }
}

/** Has BullMQ find so many jobs stalled, as those of workers that have died, and put them back. */
export async function letStall(place: Place, queue: Queue, count: number): Promise<void> {
  const taker = takerOf(place, queue.name, { lockDuration: 100, stalledInterval: 100, maxStalledCount: 9 });
  try {
    for (let taken = 0; taken < count; taken += 1) await taker.next();
    await taker.worker.startStalledCheckTimer();
    await eventually(
      () => queue.getJobs(['waiting']),
      (jobs) => expect(jobs.filter((job) => job.stalledCounter === 1)).toHaveLength(count),
    );
  } finally {
    await taker.close();
  }
}
