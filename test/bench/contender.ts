import type { QueueOptions } from 'bullmq';

/** Where a contender runs: a database and a queue namespace of its own. */
export interface Site {
  readonly databaseUrl: string;
  readonly connection: QueueOptions['connection'];
  readonly prefix: string;
}

/** A way of working through a queue. Jobs are added first and then worked off, so that only working is measured. */
export interface Contender {
  readonly name: string;
  /** Keeps its state in Redis, so there is nothing to measure where the queues are in Postgres. Default: false. */
  readonly isOnRedisOnly?: boolean;
  open(site: Site, concurrency: number): Promise<OpenContender>;
}

/** One opened contender. */
export interface OpenContender {
  fill(jobs: number): Promise<void>;
  /** Starts the worker, which counts the jobs it has done. Resolves when the countdown is over and every result is recorded. */
  drain(countdown: Countdown): Promise<void>;
  /** How much CPU time it takes to tell of a job that succeeds, in µs; where there is anybody to tell. */
  tellUs?(jobs: number): number;
  /** How much CPU time a guarded call takes more than the call, in µs; where there is a guard. */
  guardUs?(calls: number): Promise<number>;
  close(): Promise<void>;
}

export const QUEUE = 'bench';

/** The jobs that are added at once. */
export const CHUNK = 1000;

/** The same for every contender on BullMQ. */
export const FORGET_COMPLETED = { removeOnComplete: true };

/** The handler returns at once, so that all that is measured is what goes on around it. */
export const handle = (): Promise<{ ok: true }> => Promise.resolve({ ok: true });

export const payloadOf = (number: number): object => ({
  orderId: `order-${number}`,
  amountCents: 1999,
  currency: 'EUR',
});

/** The numbers from 0, in chunks of one size. */
export function* chunks(count: number, size = CHUNK): Generator<number[]> {
  for (let start = 0; start < count; start += size)
    yield Array.from({ length: Math.min(size, count - start) }, (_, index) => start + index);
}

/** Counts jobs that are done. The first ones warm everything up, and are not measured. */
export class Countdown {
  readonly over: Promise<void>;
  #left: number;
  #settle!: { resolve: () => void; reject: (error: unknown) => void };

  readonly #leftWhenWarm: number;

  constructor(
    jobs: number,
    warmUp: number,
    private readonly onWarm: () => void,
  ) {
    this.#left = jobs;
    this.#leftWhenWarm = jobs - warmUp;
    this.over = new Promise((resolve, reject) => (this.#settle = { resolve, reject }));
  }

  count(): void {
    this.#left -= 1;
    if (this.#left === this.#leftWhenWarm) this.onWarm();
    if (this.#left === 0) this.#settle.resolve();
  }

  fail(error: unknown): void {
    this.#settle.reject(error);
  }
}
