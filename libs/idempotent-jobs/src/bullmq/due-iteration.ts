import { ErrorCode, type Job, type JobsOptions, type Queue, type RepeatOptions } from 'bullmq';
import { DEADLOCK_DETECTED, sqlStateOf } from '../ledger/postgres/no-connection.js';

/**
 * Changes or ends a scheduler without losing an iteration that is due but not yet taken by a worker. BullMQ by itself
 * drops the job of the next iteration with every change, even if its time has come.
 *
 * First the due iteration leaves the scheduler, in the way that a worker takes it: in one atomic step of BullMQ's,
 * which only the first process wins, the scheduler goes on to its next iteration and the job stays on the queue. The
 * change then only meets later iterations.
 *
 * If the process is killed at any point, the job is on its queue, unless it fell due between the reading and the
 * change.
 *
 * If another process changes the same scheduler, BullMQ may refuse the change, and its Postgres backend may end it as a
 * deadlock. A retry finds what the other process has made.
 */
export async function keepingDue<T>(
  bullmq: Queue,
  schedulerId: string,
  change: () => Promise<T>,
): Promise<T> {
  for (let tries = 1; ; tries += 1) {
    try {
      return await changeOnce(bullmq, schedulerId, change);
    } catch (error) {
      if (!isRivals(error) || tries === MAX_TRIES) throw error;
    }
  }
}

/** The number of processes that may start at one time and meet each other in turn. */
const MAX_TRIES = 10;

function isRivals(error: unknown): boolean {
  const { code } = error as { code?: unknown };
  return (
    code === ErrorCode.SchedulerJobIdCollision ||
    code === ErrorCode.SchedulerJobSlotsBusy ||
    sqlStateOf(error) === DEADLOCK_DETECTED
  );
}

async function changeOnce<T>(bullmq: Queue, schedulerId: string, change: () => Promise<T>): Promise<T> {
  const next = await nextOf(bullmq, schedulerId);
  if (next === undefined) return change();
  if (isDue(next)) await leave(bullmq, schedulerId, next);
  const result = await change();
  // It may have fallen due meanwhile, or it was the last one, for which no next one exists.
  if (isDue(next)) await putBack(bullmq, next);
  return result;
}

interface Iteration {
  readonly dueAt: number;
  readonly job: Job;
}

/** The iteration that the scheduler waits for. Undefined when the scheduler does not exist or the job is gone. */
async function nextOf(bullmq: Queue, schedulerId: string): Promise<Iteration | undefined> {
  const dueAt = (await bullmq.getJobScheduler(schedulerId))?.next;
  if (dueAt === undefined) return undefined;
  const job = (await bullmq.getJob(`repeat:${schedulerId}:${dueAt}`)) as Job | undefined;
  return job && { dueAt, job };
}

/** By this process's clock, by which BullMQ also changes schedulers. */
function isDue({ dueAt }: Iteration): boolean {
  return dueAt <= Date.now();
}

async function leave(bullmq: Queue, schedulerId: string, { job }: Iteration): Promise<void> {
  const { repeat } = job.opts as JobsOptions & { repeat?: RepeatOptions };
  if (repeat === undefined) return;
  const scheduler = await bullmq.jobScheduler;
  await scheduler
    .upsertJobScheduler(schedulerId, repeat, job.name, job.data, job.opts, {
      override: false,
      producerId: job.id,
    })
    // A pattern that can no longer be read has no next iteration either. The job is put back.
    .catch(() => undefined);
}

/** Adds the iteration as a job of its own, under its own id. BullMQ ignores this as long as it has the job. */
async function putBack(bullmq: Queue, { job }: Iteration): Promise<void> {
  const { attempts, backoff, priority, telemetry, removeOnComplete, removeOnFail } = job.opts;
  const opts: JobsOptions = { attempts, backoff, priority, telemetry, removeOnComplete, removeOnFail };
  const given = Object.entries(opts).filter(([, value]) => value !== undefined);
  await bullmq.add(job.name, job.data, { ...Object.fromEntries(given), jobId: job.id as string });
}
