import { setTimeout as pause } from 'node:timers/promises';
import type { INestApplicationContext } from '@nestjs/common';
import { expect } from 'vitest';
import type { TestApps } from './apps.js';
import { eventually } from './eventually.js';
import { bullQueue, idempotentQueue, lettersOf } from './ledger.js';
import type { Place } from './place.js';
import { Gate, processorOf } from './processors.js';
import { dataSourceOf } from './scenario.js';
import { singly } from './start-app.js';

const QUEUE = 'charges';
const UNFINISHED = ['waiting', 'active', 'delayed', 'prioritized'] as const;

/** Longer than a slow machine keeps its process from renewing it, for a lost one would be a doubt. */
const LEASE_MS = 15_000;
/** Short, so that what a fault has broken is noticed within the test. */
const REDISPATCH = { redispatchAfterMs: 1000, redispatchMaxMs: 4000, pollMs: 100 };
const WORKER = { concurrency: 50, lockDuration: 2000, stalledInterval: 500 };

/**
 * Operations under way, none of which may be repeated and each of which counts its runs. The handler of the first one is
 * held at a gate, and so are those of the second half until the test lets them go on: whatever happens to the queue
 * happens in the middle, however slow the test is.
 */
export class Flood {
  readonly #runs = new Map<string, number>();
  readonly #first = new Gate();
  readonly #middle = new Gate();
  readonly #end = new Gate();
  app!: INestApplicationContext;

  private constructor(
    readonly place: Place,
    private readonly count: number,
  ) {}

  /** Enqueues so many operations beside a running worker, and waits until a fifth of them has run. */
  static async begin(apps: TestApps, place: Place, count: number): Promise<Flood> {
    const flood = new Flood(place, count);
    const processor = processorOf(
      QUEUE,
      // The first one is held until all others have run, however long that takes.
      { effect: 'unrepeatable', leaseMs: LEASE_MS, timeoutMs: 10 * 60_000 },
      (_job, operation) => flood.#run(operation.operationKey),
      WORKER,
    );
    const jobs = { dispatch: REDISPATCH, leaseMs: LEASE_MS };
    flood.app = await apps.beside(place, { queues: [singly(QUEUE)], providers: [processor], jobs });
    const requests = Array.from({ length: count }, (_, index) => ({
      name: 'charge',
      payload: { index },
      operationKey: `charge:${index}`,
      tenantId: 'acme',
    }));
    await idempotentQueue(flood.app, QUEUE).enqueueMany(requests);
    await eventually(
      () => flood.#runs.size,
      (runs) => expect(runs).toBeGreaterThan(count / 5),
    );
    return flood;
  }

  /** How many operations have run so far. */
  get ran(): number {
    return this.#runs.size;
  }

  /** How many jobs BullMQ still has to run. */
  async unfinishedJobs(): Promise<number> {
    const counts = await bullQueue(this.app, QUEUE).getJobCounts(...UNFINISHED);
    return Object.values(counts).reduce((sum, jobs) => sum + jobs, 0);
  }

  /** Of the jobs that BullMQ still has to run, how many it has had since that time (ms since 1970). */
  async unfinishedJobsSince(time: number): Promise<number> {
    const jobs = await bullQueue(this.app, QUEUE).getJobs([...UNFINISHED]);
    return jobs.filter((job) => job && job.timestamp <= time).length;
  }

  /** Lets the second half begin, except for the last fifth, which waits for `expectAllOnce()`. */
  goOn(): void {
    this.#middle.open();
  }

  /** Lets the held handlers go and waits for the end: every operation has completed, ran once, and nothing is left. */
  async expectAllOnce(): Promise<void> {
    this.#middle.open();
    this.#end.open();
    const everythingElse = this.count - 1;
    await eventually(
      () => this.#ledger(),
      (rows) => expect(rows).toContainEqual({ status: 'completed', attempts: 1, operations: everythingElse }),
    );
    // Held until its lease has been renewed.
    await eventually(
      () => this.#leaseOfFirst(),
      (ms) => expect(ms).toBeGreaterThan(LEASE_MS * 1.2),
    );
    this.#first.open();
    await eventually(
      () => this.#ledger(),
      (rows) => expect(rows).toEqual([{ status: 'completed', attempts: 1, operations: this.count }]),
    );
    expect([...this.#runs.values()].filter((runs) => runs !== 1)).toEqual([]);
    expect(this.#runs.size).toBe(this.count);
    expect(await lettersOf(this.app)).toEqual([]);
    await eventually(
      () => this.unfinishedJobs(),
      (jobs) => expect(jobs).toBe(0),
    );
  }

  async #run(operationKey: string): Promise<void> {
    this.#runs.set(operationKey, (this.#runs.get(operationKey) ?? 0) + 1);
    const number = this.#runs.size;
    if (operationKey === 'charge:0') return this.#first.pass();
    await pause(5);
    if (number > this.count * 0.8) await this.#end.pass();
    else if (number > this.count * 0.5) await this.#middle.pass();
  }

  /** How long after its first handler began the lease of the first operation ends. */
  async #leaseOfFirst(): Promise<number | undefined> {
    const [row] = await dataSourceOf(this.app).query<{ ms: number }[]>(
      `SELECT extract(epoch FROM lease_expires_at - started_at)::float8 * 1000 AS ms FROM job_outcomes
       WHERE operation_key = 'charge:0'`,
    );
    return row?.ms;
  }

  #ledger(): Promise<unknown[]> {
    return dataSourceOf(this.app).query(
      'SELECT status, attempts, count(*)::integer AS operations FROM job_outcomes GROUP BY 1, 2 ORDER BY 3',
    );
  }
}
