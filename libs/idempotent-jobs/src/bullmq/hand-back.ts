import { DelayedError, type Job, RateLimitError, WaitingChildrenError, WaitingError } from 'bullmq';
import { isA } from '../operation/thrown.js';

/*
 * A handler may arrange by BullMQ's own means what becomes of its job (`job.moveToDelayed()`, `worker.rateLimit()`), and
 * then throws one of BullMQ's control errors. BullMQ itself knows these by their names and messages, which any answer of
 * any service can carry. Here they are known by their class, and only once what they speak of has been done.
 */

/** Jobs that their handler has moved away from its worker. */
const moved = new WeakSet<Job>();

/** Notes from now on whether the job is moved, through the object that its handler has. */
export function watchMoves(job: Job): void {
  job.moveToDelayed = moveToDelayed;
  job.moveToWait = moveToWait;
  job.moveToWaitingChildren = moveToWaitingChildren;
}

/** Whether BullMQ has put the job elsewhere, at its handler's wish, and must not be told anything about its end. */
export function wasMoved(job: Job): boolean {
  return moved.has(job);
}

/** What the job's own functions stand before. */
function classOf(job: Job): Job {
  return Object.getPrototypeOf(job) as Job;
}

async function moveToDelayed(this: Job, ...args: Parameters<Job['moveToDelayed']>): Promise<void> {
  await classOf(this).moveToDelayed.apply(this, args);
  moved.add(this);
}

async function moveToWait(this: Job, ...args: Parameters<Job['moveToWait']>): Promise<number> {
  const result = await classOf(this).moveToWait.apply(this, args);
  moved.add(this);
  return result;
}

async function moveToWaitingChildren(
  this: Job,
  ...args: Parameters<Job['moveToWaitingChildren']>
): Promise<boolean> {
  const isMoved = await classOf(this).moveToWaitingChildren.apply(this, args);
  if (isMoved) moved.add(this);
  return isMoved;
}

/** A worker or a queue of BullMQ. */
interface Limiter {
  rateLimit(ms: number): Promise<void>;
}

/** The limits that handlers of this application have set on queues, through the objects that the library knows. */
export class QueueLimits {
  readonly #until = new Map<string, number>();

  /** Notes from now on the limits that are set through that worker or queue. */
  watch(queue: string, limiter: Limiter): void {
    const set = limiter.rateLimit.bind(limiter);
    limiter.rateLimit = async (ms) => {
      await set(ms);
      this.#until.set(queue, performance.now() + ms);
    };
  }

  /** Whether one of them, as set last, is not over yet. */
  isSet(queue: string): boolean {
    return performance.now() < (this.#until.get(queue) ?? -Infinity);
  }
}

const AFTER_A_MOVE = [DelayedError, WaitingError, WaitingChildrenError];

/** Whether a handler has handed its job back, and says so by the error it threw. */
export function isHandBack(error: unknown, job: Job, limits: QueueLimits): boolean {
  return wasMoved(job)
    ? AFTER_A_MOVE.some((kind) => isA(error, kind))
    : isA(error, RateLimitError) && limits.isSet(job.queueName);
}
