import { Injectable } from '@nestjs/common';
import { getNextMillis, Job, type JobSchedulerJson, type Queue } from 'bullmq';
import { LibraryLog } from '../../events/library-log.js';
import { identityKeyOf, type OperationIdentity } from '../../operation/identity.js';
import type { Identify } from '../identify/identify.js';

/** A BullMQ scheduler whose iterations all name one operation. */
export interface SharedKey {
  readonly queue: string;
  readonly scheduler: string;
}

/**
 * Finds the application's own schedulers (`upsertJobScheduler`) whose iterations `identify` gives one key: the first
 * one runs, and all others are silently answered with its result. Looks at jobs as they are delivered, and asks BullMQ
 * at boot.
 */
@Injectable()
export class SharedKeys {
  readonly #found = new Map<string, SharedKey>();
  /** The last iteration of each scheduler. */
  readonly #last = new Map<string, { readonly jobId: string; readonly key: string }>();

  constructor(private readonly log: LibraryLog) {}

  get found(): readonly SharedKey[] {
    return [...this.#found.values()];
  }

  /** Looks at a delivered job and its operation. Warns once for each scheduler. */
  note(job: Job, operation: OperationIdentity): void {
    const scheduler = schedulerOf(job);
    if (scheduler === undefined) return;
    const shared = { queue: job.queueName, scheduler };
    const name = nameOf(shared);
    const { jobId, key } = this.#last.get(name) ?? {};
    const seen = { jobId: job.id ?? '', key: identityKeyOf(operation) };
    if (this.#last.size < MAX_SCHEDULERS || jobId !== undefined) this.#last.set(name, seen);
    if (key !== seen.key || jobId === seen.jobId || this.#found.has(name)) return;
    this.#found.set(name, shared);
    this.log.warn(
      `${sharedKeyMessage(shared)} The key must tell iterations apart: make it of job.id, which ends in the time an iteration is due, or use IdempotentQueue.schedule().`,
    );
  }

  /** Asks BullMQ for a queue's schedulers, and `identify` for the keys of the next two iterations of each. */
  async look(queue: Queue, identify: Identify): Promise<void> {
    for (const scheduler of await queue.getJobSchedulers(0, MAX_SCHEDULERS - 1)) {
      const [first, second] = nextTwo(scheduler).map((dueAt) =>
        keyOf(identify, iterationOf(queue, scheduler, dueAt)),
      );
      if (first === undefined || first !== second) continue;
      const shared = { queue: queue.name, scheduler: scheduler.key };
      this.#found.set(nameOf(shared), shared);
    }
  }
}

/** What is wrong, without the fix. */
export function sharedKeyMessage({ queue, scheduler }: SharedKey): string {
  return `All iterations of BullMQ's scheduler "${scheduler}" on queue "${queue}" name one operation: the first one runs, and every other is answered with its result and does nothing.`;
}

/** More schedulers than an application has, unless it makes them from data. */
const MAX_SCHEDULERS = 100;

const DAY_MS = 24 * 60 * 60 * 1000;

function nameOf({ queue, scheduler }: SharedKey): string {
  return JSON.stringify([queue, scheduler]);
}

function schedulerOf({ id = '', repeatJobKey }: Job): string | undefined {
  if (repeatJobKey !== undefined) return repeatJobKey;
  return id.startsWith('repeat:') ? id.slice('repeat:'.length, id.lastIndexOf(':')) : undefined;
}

function nextTwo({ next = Date.now(), every, pattern, tz }: JobSchedulerJson): readonly number[] {
  try {
    return [
      next,
      pattern === undefined
        ? next + (every ?? DAY_MS)
        : (getNextMillis(next, { pattern, tz }) ?? next + DAY_MS),
    ];
  } catch {
    // The application has its own repeat strategy, which alone can read the pattern.
    return [next, next + DAY_MS];
  }
}

/** The iteration as BullMQ would make it. It is not put on any queue. */
function iterationOf(queue: Queue, { key, name, template, pattern }: JobSchedulerJson, dueAt: number): Job {
  const opts = { ...template?.opts, timestamp: dueAt, ...(pattern !== undefined && { prevMillis: dueAt }) };
  const job = new Job(queue, name, template?.data ?? {}, opts, `repeat:${key}:${dueAt}`);
  job.repeatJobKey = key;
  return job;
}

/** The operation's key. Undefined when `identify` gives none, which the job's dead letter will say. */
function keyOf(identify: Identify, job: Job): string | undefined {
  try {
    const { tenantId, operationKey } = identify(job) ?? {};
    return tenantId === undefined || operationKey === undefined
      ? undefined
      : identityKeyOf({ tenantId, operationKey });
  } catch {
    return undefined;
  }
}
