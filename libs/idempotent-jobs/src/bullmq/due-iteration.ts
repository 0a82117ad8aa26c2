import { ErrorCode, type Job, type JobsOptions, type Queue, type RepeatOptions } from 'bullmq';
import { DEADLOCK_DETECTED, sqlStateOf } from '../ledger/postgres/sqlstate.js';

/**
 * Changes or ends a scheduler without losing its iteration that is due and that no worker has taken yet. BullMQ by itself
 * drops the job of the next iteration with every change, whether or not its time has come.
 *
 * What is due leaves the scheduler first, in the way that a worker takes it: in one step of BullMQ's, by whoever is first,
 * the scheduler goes on to its next iteration and the job stays on the queue as it is. So the change meets later ones only.
 *
 * Killed anywhere, the job is on its queue, with one exception: it fell due between the look and the change.
 *
 * Where another process is changing the same scheduler, BullMQ may refuse the change, and its Postgres may end it as a
 * deadlock. Tried again, it finds what the other has made.
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

/** As many processes as may start at one time and be unlucky one after the other. */
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
  // It may have fallen due meanwhile, or have been the last one, which has no other to make way for.
  if (isDue(next)) await putBack(bullmq, next);
  return result;
}

interface Iteration {
  readonly dueAt: number;
  readonly job: Job;
}

/** The iteration that the scheduler waits for; undefined: there is no such scheduler, or the job is gone. */
async function nextOf(bullmq: Queue, schedulerId: string): Promise<Iteration | undefined> {
  const dueAt = (await bullmq.getJobScheduler(schedulerId))?.next;
  if (dueAt === undefined) return undefined;
  const job = (await bullmq.getJob(`repeat:${schedulerId}:${dueAt}`)) as Job | undefined;
  return job && { dueAt, job };
}

/** By this process's clock, which is also the one that BullMQ changes schedulers by. */
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
    // Times that cannot be read any more have no next one either. The job is put back.
    .catch(() => undefined);
}

/** As a job of its own, under its own id, which BullMQ ignores as long as it has the job. */
async function putBack(bullmq: Queue, { job }: Iteration): Promise<void> {
  const { attempts, backoff, priority, telemetry, removeOnComplete, removeOnFail } = job.opts;
  const opts: JobsOptions = { attempts, backoff, priority, telemetry, removeOnComplete, removeOnFail };
  const given = Object.entries(opts).filter(([, value]) => value !== undefined);
  await bullmq.add(job.name, job.data, { ...Object.fromEntries(given), jobId: job.id as string });
}
