import { AsyncResource } from 'node:async_hooks';
import { Worker } from 'bullmq';

/**
 * The handlers that a worker runs at once, where its BullMQ jobs may carry several operations. `worker.concurrency` stays
 * the number of handlers. BullMQ is told how many jobs the worker may hold: another one only while a place is free, so that no
 * operation waits here that another worker could run, but for those that came in a bundle with others.
 */
export class Slots {
  #limit: number;
  #running = 0;
  /** BullMQ's jobs that this worker holds, and their operations that have not ended. */
  #jobs = 0;
  #operations = 0;
  #isDraining = false;
  /** How many jobs BullMQ was told that it may hold. */
  #allowed = 0;
  readonly #waiting: Waiting[] = [];

  /** @param bundleSize the most operations of a bundle */
  constructor(
    private readonly worker: Worker,
    private readonly bundleSize: number,
  ) {
    this.#limit = worker.concurrency;
    Object.defineProperty(worker, 'concurrency', {
      configurable: true,
      get: () => this.#limit,
      set: (limit: number) => {
        setJobs(worker, limit);
        this.#limit = limit;
        this.#admit();
        this.#adapt();
      },
    });
    keepDelays(worker);
    this.#adapt();
  }

  /**
   * Runs work for each operation of a BullMQ job as places become free, and resolves when all of it has ended. Operations that
   * have waited for `patienceMs`, or that wait when the worker stops, are given back instead, if they can be. Never rejects.
   */
  async run<O>(operations: readonly O[], { work, giveBack, patienceMs }: SlotWork<O>): Promise<void> {
    if (operations.length === 0) return;
    this.#jobs += 1;
    this.#operations += operations.length;
    this.#adapt();
    // What begins later would otherwise begin in the frame, and in the trace, of what has ended then.
    const here = new AsyncResource('nestjs-idempotent-jobs:slots');
    let left = operations.length;
    let resolve = (): void => undefined;
    const over = new Promise<void>((end) => (resolve = end));
    const end = (): void => {
      left -= 1;
      this.#operations -= 1;
      if (left === 0) this.#jobs -= 1;
      this.#adapt();
      if (left === 0) resolve();
    };
    const endWork = (): void => {
      this.#leave();
      end();
    };
    for (const operation of operations) {
      this.#waiting.push({
        start: () => void here.runInAsyncScope(work, undefined, operation).then(endWork),
        giveBack: giveBack && (() => void here.runInAsyncScope(giveBack, undefined, operation).then(end)),
      });
    }
    const timer = patienceMs === undefined ? undefined : this.#giveBackIn(patienceMs, operations.length);
    this.#admit();
    await over;
    clearTimeout(timer);
  }

  /** Gives back what has not begun, now and from now on. */
  drain(): void {
    this.#isDraining = true;
    this.#giveBack(() => true);
  }

  /** After `patienceMs`, gives back those of the `last` operations queued here that still wait. */
  #giveBackIn(patienceMs: number, last: number): NodeJS.Timeout {
    const mine = new Set(this.#waiting.slice(-last));
    return setTimeout(() => this.#giveBack((waiting) => mine.has(waiting)), patienceMs);
  }

  #leave(): void {
    this.#running -= 1;
    this.#admit();
  }

  #admit(): void {
    if (this.#isDraining) this.#giveBack(() => true);
    while (this.#running < this.#limit) {
      const next = this.#waiting.shift();
      if (next === undefined) return;
      this.#running += 1;
      next.start();
    }
  }

  #giveBack(isMeant: (waiting: Waiting) => boolean): void {
    const all = this.#waiting.splice(0);
    for (const waiting of all) {
      if (waiting.giveBack !== undefined && isMeant(waiting)) waiting.giveBack();
      else this.#waiting.push(waiting);
    }
  }

  /** Lets BullMQ take as many jobs as fill the free places if all of them are bundles, and at least one if one is free. */
  #adapt(): void {
    const free = Math.max(0, this.#limit - this.#operations);
    const jobs = Math.max(1, this.#jobs + Math.ceil(free / this.bundleSize));
    if (jobs === this.#allowed) return;
    const isMore = jobs > this.#allowed;
    this.#allowed = jobs;
    setJobs(this.worker, jobs);
    if (isMore) wake(this.worker);
  }
}

/** What is done with operations. Neither may reject. */
export interface SlotWork<O> {
  readonly work: (operation: O) => Promise<void>;
  /** Undefined for an operation that is not given back. */
  readonly giveBack: ((operation: O) => Promise<void>) | undefined;
  /** Undefined for an operation that waits for as long as it takes. */
  readonly patienceMs: number | undefined;
}

interface Waiting {
  readonly start: () => void;
  readonly giveBack: (() => void) | undefined;
}

const CONCURRENCY = Object.getOwnPropertyDescriptor(Worker.prototype, 'concurrency');

/** BullMQ's own number of jobs at once. */
function setJobs(worker: Worker, jobs: number): void {
  CONCURRENCY?.set?.call(worker, jobs);
}

/**
 * A worker that waits for one of its jobs to end does not see that it may hold more. BullMQ wakes it in the same way when it
 * is resumed.
 */
function wake(worker: Worker): void {
  const { mainLoopQueue } = worker as unknown as { mainLoopQueue?: { add(job: Promise<void>): void } | null };
  mainLoopQueue?.add(Promise.resolve());
}

/**
 * Makes a worker remember when the next delayed job is due. BullMQ's worker forgets it when one of its jobs ends and no other
 * one may be fetched, because the worker may hold fewer jobs now; or when the answer was given before that job was put off. The
 * delayed job would then wait until the worker looks by itself, which is every 5 s.
 */
function keepDelays(worker: Worker): void {
  const inner = worker as unknown as {
    blockUntil: number;
    updateDelays(...delays: [limitMs?: number, dueAt?: number]): void;
  };
  inner.updateDelays = (...delays) => {
    const { blockUntil: knownDueAt } = inner;
    const [limitMs, dueAt = 0] = delays;
    // It is called without arguments when the worker begins to wait for that very job, and may forget it then.
    const isForgetting = delays.length > 0 && dueAt <= 0 && knownDueAt > Date.now();
    const kept = isForgetting ? ([limitMs, knownDueAt] as const) : delays;
    Worker.prototype['updateDelays'].apply(worker, kept);
  };
}
