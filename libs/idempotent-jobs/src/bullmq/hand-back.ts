import { DelayedError, type Job, RateLimitError, WaitingChildrenError, WaitingError } from 'bullmq';
import { isA } from '../operation/thrown.js';
import { identityKeyOf, type OperationIdentity } from '../operation/identity.js';

/*
 * A handler may hand its job back by BullMQ's own means (`job.moveToDelayed()`, `worker.rateLimit()`), and then throws
 * one of BullMQ's control errors. BullMQ itself recognises these by their names and messages, which a service's answer
 * may contain, too. The library recognises them by their class, and only after the job was moved or the limit was set.
 */

/** Jobs that their handler has moved away from its worker. */
const moved = new WeakSet<Job>();

type Move = (this: Job, ...args: any[]) => Promise<unknown>;

/** A method of BullMQ's jobs that notes when it has moved its job. */
function watched(name: 'moveToDelayed' | 'moveToWait' | 'moveToWaitingChildren'): Move {
  return async function (...args) {
    const { [name]: move } = Object.getPrototypeOf(this) as Record<string, Move>;
    const result = await (move as Move).apply(this, args);
    // A job without unfinished children is not moved: false.
    if (result !== false) moved.add(this);
    return result;
  };
}

const moveToDelayed = watched('moveToDelayed') as Job['moveToDelayed'];
const moveToWait = watched('moveToWait') as Job['moveToWait'];
const moveToWaitingChildren = watched('moveToWaitingChildren') as Job['moveToWaitingChildren'];

/** Watches the job object of the handler, and notes when it moves the job. */
export function watchMoves(job: Job): void {
  job.moveToDelayed = moveToDelayed;
  job.moveToWait = moveToWait;
  job.moveToWaitingChildren = moveToWaitingChildren;
}

/** Whether the handler has moved the job, so that BullMQ must not be told about its end. */
export function wasMoved(job: Job): boolean {
  return moved.has(job);
}

/** A worker or a queue of BullMQ. */
interface Limiter {
  rateLimit(ms: number): Promise<void>;
}

/** The rate limits that handlers of this application have set through the workers and queues that are watched. */
export class QueueLimits {
  readonly #until = new Map<string, number>();

  /** Watches a worker or queue, and notes the limits that are set through it. */
  watch(queue: string, limiter: Limiter): void {
    const set = limiter.rateLimit.bind(limiter);
    limiter.rateLimit = async (ms) => {
      await set(ms);
      this.#until.set(queue, performance.now() + ms);
    };
  }

  /** Whether the limit that was set last is still in force. */
  isSet(queue: string): boolean {
    return this.leftMs(queue) > 0;
  }

  /** For how long it is in force, in ms. */
  leftMs(queue: string): number {
    return Math.max(0, (this.#until.get(queue) ?? -Infinity) - performance.now());
  }
}

const AFTER_A_MOVE = [DelayedError, WaitingError, WaitingChildrenError];

/** Whether a handler has handed its job back, and says so by the error that it threw. */
export function isHandBack(error: unknown, job: Job, limits: QueueLimits): boolean {
  return wasMoved(job)
    ? AFTER_A_MOVE.some((kind) => isA(error, kind))
    : isA(error, RateLimitError) && limits.isSet(job.queueName);
}

/** Beyond this number the operation that was handed back longest ago is forgotten, and counts from one again. */
const MAX_COUNTED = 10_000;

/**
 * Counts how often in a row an operation was handed back in this process without an attempt that ended. Nothing else
 * limits hand-backs: they cost neither an attempt nor, in BullMQ, anything at all.
 */
export class HandBackCounter {
  /** Ordered by the last hand-back. */
  readonly #times = new Map<string, number>();

  /** Counts one more, and returns the number. */
  count(operation: OperationIdentity): number {
    const key = identityKeyOf(operation);
    const times = (this.#times.get(key) ?? 0) + 1;
    this.#times.delete(key);
    this.#times.set(key, times);
    const [oldest] = this.#times.keys();
    if (this.#times.size > MAX_COUNTED && oldest !== undefined) this.#times.delete(oldest);
    return times;
  }

  /** Called when an attempt of the operation has ended. */
  forget(operation: OperationIdentity): void {
    if (this.#times.size > 0) this.#times.delete(identityKeyOf(operation));
  }
}
