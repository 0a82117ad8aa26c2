import { setTimeout as pause } from 'node:timers/promises';
import { ErrorCode, type Job, type JobsOptions, type Queue, type RepeatOptions } from 'bullmq';
import { DEADLOCK_DETECTED, sqlStateOf } from '../ledger/postgres/no-connection.js';
import { type BackoffOptions, backoffMs } from '../resilience/backoff.js';

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
 * Two processes may make a scheduler at the same time, and neither sees it there before. `made` is told of a change that
 * made one, and when that was begun: an iteration that fell due since then may be the other process's, which the change
 * has dropped.
 *
 * If another process changes the same scheduler, BullMQ may refuse the change, and its Postgres backend may end it as a
 * deadlock. A retry finds what the other process has made. It waits for a random time first: the one that is refused is
 * the one that waited for a lock, and would come second again and again if both went on at once.
 */
export async function keepingDue<T>(
  bullmq: Queue,
  schedulerId: string,
  change: () => Promise<T>,
  made: (begunAt: number) => Promise<void> = async () => undefined,
): Promise<T> {
  for (let tries = 1; ; tries += 1) {
    try {
      return await changeOnce(bullmq, schedulerId, change, made);
    } catch (error) {
      if (!isRivals(error) || tries === MAX_TRIES) throw error;
      await pause(backoffMs({ failures: tries, isThrottled: false }, BACKOFF, Math.random));
    }
  }
}

/** The number of processes that may start at one time and meet each other in turn. */
const MAX_TRIES = 10;

/** At first for less than 5 ms, about what a change takes; later for up to a quarter of a second. */
const BACKOFF: BackoffOptions = { baseMs: 5, capMs: 250 };

function isRivals(error: unknown): boolean {
  const { code } = error as { code?: unknown };
  return (
    code === ErrorCode.SchedulerJobIdCollision ||
    code === ErrorCode.SchedulerJobSlotsBusy ||
    sqlStateOf(error) === DEADLOCK_DETECTED
  );
}

async function changeOnce<T>(
  bullmq: Queue,
  schedulerId: string,
  change: () => Promise<T>,
  made: (begunAt: number) => Promise<void>,
): Promise<T> {
  const begunAt = Date.now();
  const iterations = await leaveDue(bullmq, schedulerId);
  const result = await change();
  if (iterations.length === 0) await made(begunAt);
  // One may have fallen due meanwhile, or was the last one, for which no next one exists.
  for (const iteration of iterations.filter(isDue)) await putBack(bullmq, iteration);
  return result;
}

/** Has what is due leave the scheduler. Returns those, and the one that the scheduler waits for after them. */
async function leaveDue(bullmq: Queue, schedulerId: string): Promise<readonly Iteration[]> {
  const iterations: Iteration[] = [];
  for (;;) {
    const next = await nextOf(bullmq, schedulerId);
    // One that is still there cannot leave.
    if (next === undefined || next.dueAt === iterations.at(-1)?.dueAt) return iterations;
    iterations.push(next);
    if (!isDue(next) || iterations.length === MAX_DUE) return iterations;
    await leave(bullmq, schedulerId, next);
  }
}

/** More fall due while others leave only where a scheduler is as fast as BullMQ is. */
const MAX_DUE = 5;

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
