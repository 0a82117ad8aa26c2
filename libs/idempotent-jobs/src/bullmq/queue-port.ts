import { type EventEmitter, once } from 'node:events';
import {
  type BackendFactory,
  getNextMillis,
  type Job,
  type JobsOptions,
  type Queue,
  type RedisQueueBackend,
  type RepeatOptions,
} from 'bullmq';
import { ConfigurationError, UsageError } from '../operation/errors.js';
import { isOverWithin } from '../operation/within.js';
import { messageOf } from '../operation/thrown.js';
import type { Queryable } from '../ledger/postgres/database.js';
import { Location, nameDatabase } from '../ledger/postgres/location.js';
import { assertBackend, redisClientOf } from './backend.js';
import { isCarrier } from '../tracing/tracing.js';
import { keepingDue } from './due-iteration.js';
import { QueueContents } from './queue-contents.js';
import { BACKOFF_TYPE, CARRIED_ATTEMPTS } from './error-for-bullmq.js';
import { postgresOf, withQueueInTransaction } from './transaction-port.js';
import { DEFAULT_PREFIX } from './queue-prefix.js';

/** A job on its way to a queue. */
export interface OutgoingJob {
  readonly name: string;
  readonly jobId: string;
  readonly data: unknown;
  readonly delayMs: number;
  readonly priority: number | undefined;
  /** Whether it was on the queue before. BullMQ may have it as finished, while the ledger still waits for it. */
  readonly wasPut?: boolean;
  /** Whether it goes before those that wait, because it was taken off the queue and not begun. */
  readonly isFirst?: boolean;
  /** The trace that the worker's spans belong to, if it is a carrier. Otherwise BullMQ decides. */
  readonly trace?: unknown;
}

/** What each iteration of a schedule is made of. */
export interface ScheduledJob extends Pick<OutgoingJob, 'name' | 'data' | 'priority'> {
  /** Whether iterations are kept out of the trace that the schedule was made in. */
  readonly isUntraced: boolean;
}

/** @internal BullMQ types its classes for Redis, even on Postgres. */
type MakeBackend = BackendFactory<RedisQueueBackend>;

/** A BullMQ queue, reduced to what the library needs of it, and the same on both backends. */
export class QueuePort {
  /** The jobs of the queue. */
  readonly contents: QueueContents;
  readonly #location: Location;

  /** @throws ConfigurationError for a queue that this copy of BullMQ cannot use: see {@link assertBackend} */
  constructor(readonly bullmq: Queue) {
    assertBackend(bullmq);
    this.contents = new QueueContents(bullmq);
    this.#location = new Location(() => this.#nameDatabase());
  }

  get name(): string {
    return this.bullmq.name;
  }

  /**
   * @internal The backend factory for workers of this queue, so that they look where the queue's jobs are. BullMQ 5 has none, and takes
   * that for Redis.
   */
  get makeBackend(): MakeBackend {
    return (this.bullmq as unknown as { backendFactory: MakeBackend }).backendFactory;
  }

  get backend(): 'redis' | 'postgres' {
    return postgresOf(this.bullmq) === undefined ? 'redis' : 'postgres';
  }

  /** The largest data of a job as JSON in UTF-8, in bytes, by the queue's own options; BullMQ refuses larger data. */
  get maxDataBytes(): number | undefined {
    return this.bullmq.defaultJobOptions.sizeLimit;
  }

  /** Whether BullMQ keeps the queue in the database of that name, as `nameDatabase` names it. */
  async isIn(databaseName: string): Promise<boolean> {
    return this.backend === 'postgres' && (await this.#location.is(databaseName)) === true;
  }

  /**
   * Puts jobs on the queue. Putting a job again changes nothing while BullMQ still has to run it; a job that was put
   * before and that BullMQ has as finished starts anew. Jobs with `carriesRetries` false are dead letters.
   *
   * Rejects while Redis is not connected: a command that waits in this process for its connection would be sent
   * whenever the connection comes back. Nothing more is sent once `isAwaited` returns false.
   */
  async put(
    jobs: readonly OutgoingJob[],
    carriesRetries = true,
    isAwaited: () => boolean = () => true,
  ): Promise<void> {
    await this.#connected();
    await Promise.all(jobs.flatMap((job) => (job.wasPut === true ? [this.#makeWay(job)] : [])));
    await this.#connected();
    if (isAwaited()) await this.bullmq.addBulk(jobs.map((job) => entryOf(job, carriesRetries)));
  }

  /** Waits a moment for the connection to Redis, and rejects if there is none then. Postgres pools reject by themselves. */
  async #connected(): Promise<void> {
    if (this.backend === 'postgres') return;
    const client = await redisClientOf(this.bullmq);
    // The same for a Cluster: at `connect` its client knows the servers, but still holds commands back.
    if (client.status === 'ready') return;
    try {
      await once(client as unknown as EventEmitter, 'ready', { signal: AbortSignal.timeout(READY_MS) });
    } catch {
      throw new Error(`Queue "${this.name}" is not connected to Redis (${client.status}); nothing was sent`);
    }
  }

  /**
   * Puts jobs on the queue in a transaction of the database that it {@link isIn}: they are there if and only if it
   * commits.
   */
  async putWithin(connection: Queryable, jobs: readonly OutgoingJob[]): Promise<void> {
    await withQueueInTransaction(this.bullmq, connection, async (queue) => {
      const [first, ...rest] = jobs.map((job) => entryOf(job, true));
      // BullMQ adds several jobs by way of temporary tables. A transaction with one job is spared them.
      if (rest.length === 0 && first !== undefined) await queue.add(first.name, first.data, first.opts);
      else await queue.addBulk([first, ...rest] as Parameters<Queue['addBulk']>[0]);
    });
  }

  /**
   * Makes way for a job that is put again. If BullMQ has delayed it for longer than the ledger says, because a worker's
   * clock was wrong, its delay is corrected.
   */
  async #makeWay({ jobId, delayMs }: OutgoingJob): Promise<void> {
    const state = await this.bullmq.getJobState(jobId);
    if (state === 'completed' || state === 'failed') await this.#clear(jobId);
    if (state === 'delayed') await this.#retime(jobId, delayMs);
  }

  async #retime(jobId: string, delayMs: number): Promise<void> {
    const job = await this.bullmq.getJob(jobId);
    try {
      if (delayMs > 0) await job?.changeDelay(Math.ceil(delayMs));
      else await job?.promote();
    } catch (error) {
      // The job is due by now, so nothing has to be corrected.
      if ((await this.bullmq.getJobState(jobId)) === 'delayed') throw error;
    }
  }

  /**
   * Removes a finished job, which would block its id. Another process may revive the job between the check and the
   * removal. If a worker has taken it by then, its lock keeps it from being removed; if it still waits, it is added
   * again right after.
   */
  async #clear(jobId: string): Promise<void> {
    // Its children, if it has any, are other operations.
    await this.bullmq.remove(jobId, { removeChildren: false });
  }

  /** The job as a node of a flow, with the queue's default job options. */
  nodeOf(job: OutgoingJob): {
    name: string;
    queueName: string;
    prefix: string;
    data: unknown;
    opts: JobsOptions;
  } {
    // Given in any case: a FlowProducer may have another one for nodes without.
    const { prefix = DEFAULT_PREFIX } = this.bullmq.opts;
    const { name, data, opts } = entryOf(job, true);
    return {
      name,
      queueName: this.name,
      prefix,
      data,
      opts: { ...this.bullmq.defaultJobOptions, ...opts },
    };
  }

  /**
   * Makes or replaces a scheduler. Returns the job of its next iteration, undefined when there will be none. An
   * iteration that is due already stays on the queue as it was made.
   *
   * @throws UsageError for a pattern or time zone that BullMQ cannot read
   */
  async schedule(
    schedulerId: string,
    repeat: RepeatOptions,
    { name, data, priority, isUntraced }: ScheduledJob,
  ): Promise<Job | undefined> {
    this.#assertReadable(repeat);
    const telemetry = isUntraced && { telemetry: { omitContext: true } };
    const template = { name, data, opts: { ...RETRY_CARRIER, ...(priority && { priority }), ...telemetry } };
    return keepingDue(
      this.bullmq,
      schedulerId,
      () => this.bullmq.upsertJobScheduler(schedulerId, repeat, template),
      (begunAt) => this.#addPassed(schedulerId, repeat, template, begunAt),
    );
  }

  /**
   * Adds the first iteration of a new scheduler that has fallen due while the scheduler was made. BullMQ ignores this as
   * long as it has the job. A scheduler with `every` begins at once.
   */
  async #addPassed(
    schedulerId: string,
    repeat: RepeatOptions,
    { name, data, opts }: { name: string; data: unknown; opts: JobsOptions },
    begunAt: number,
  ): Promise<void> {
    if (repeat.pattern === undefined || this.#hasOwnStrategy) return;
    const first = getNextMillis(begunAt, repeat);
    if (first === undefined || first > Date.now()) return;
    await this.bullmq.add(name, data, { ...opts, jobId: `repeat:${schedulerId}:${first}` });
  }

  /** A repeat strategy of the application reads patterns in its own way. */
  get #hasOwnStrategy(): boolean {
    const { settings } = this.bullmq.opts as { settings?: { repeatStrategy?: unknown } };
    return settings?.repeatStrategy !== undefined;
  }

  #assertReadable(repeat: RepeatOptions): void {
    if (repeat.pattern === undefined || this.#hasOwnStrategy) return;
    try {
      getNextMillis(Date.now(), repeat);
    } catch (error) {
      const zone = repeat.tz === undefined ? '' : ` in time zone "${repeat.tz}"`;
      throw new UsageError(
        `BullMQ cannot read the pattern "${repeat.pattern}"${zone} of a schedule: ${messageOf(error)}`,
      );
    }
  }

  /**
   * Ends a scheduler and removes the job of its next iteration, unless that is due already. False when the scheduler
   * does not exist.
   */
  async unschedule(schedulerId: string): Promise<boolean> {
    return keepingDue(this.bullmq, schedulerId, () => this.bullmq.removeJobScheduler(schedulerId));
  }

  /** Keeps workers that have a limiter from taking jobs off the queue, for `ms`. */
  async holdBack(ms: number): Promise<void> {
    await this.bullmq.rateLimit(Math.ceil(ms));
  }

  /** Ends {@link holdBack} before its time. */
  async letGo(): Promise<void> {
    await this.bullmq.removeRateLimitKey();
  }

  /**
   * Makes sure that BullMQ's tables are in its Postgres. Where they are not, a worker of BullMQ asks for jobs again and
   * again, without a pause in which anything else of the process could run. The same goes for a Postgres that refuses the
   * first connection, since BullMQ never tries again. A silent one is not waited for longer than 3 s.
   *
   * @throws ConfigurationError
   */
  async assertTables(): Promise<void> {
    if (postgresOf(this.bullmq) === undefined) return;
    try {
      await isOverWithin(READY_MS, this.bullmq.waitUntilReady());
    } catch (cause) {
      throw new ConfigurationError(`BullMQ cannot use queue "${this.name}": ${messageOf(cause)}`, cause);
    }
  }

  /** Sends the backend a cheap command; rejects if it does not answer. */
  async ping(): Promise<void> {
    await this.bullmq.isPaused();
  }

  async #nameDatabase(): Promise<string> {
    const postgres = postgresOf(this.bullmq);
    if (postgres === undefined) throw new Error(`Queue "${this.name}" is not in Postgres`);
    await this.bullmq.waitUntilReady();
    return nameDatabase(postgres.pool as unknown as Queryable);
  }
}

/** Longer than it takes to restore a lost connection, shorter than the process that puts jobs waits. */
const READY_MS = 3_000;

/** The options that make BullMQ carry a job's retries: it must not stop retrying before the ledger does. */
const RETRY_CARRIER: Pick<JobsOptions, 'attempts' | 'backoff'> = {
  attempts: CARRIED_ATTEMPTS,
  backoff: { type: BACKOFF_TYPE },
};

/**
 * The consumer of a dead-letter queue may fail: ten attempts after 1, 2, 4 … s take nine minutes, enough for a pager
 * service to come back. The attempts of the letter's operation are over.
 */
const LETTER_RETRIES: JobsOptions = {
  attempts: 10,
  backoff: { type: 'exponential', delay: 1000, jitter: 0.2 },
};

function entryOf(
  { name, jobId, data, delayMs, priority, isFirst, trace }: OutgoingJob,
  carriesRetries: boolean,
): { name: string; data: unknown; opts: JobsOptions } {
  return {
    name,
    data,
    opts: {
      jobId,
      ...(carriesRetries ? RETRY_CARRIER : LETTER_RETRIES),
      ...(delayMs > 0 && { delay: Math.ceil(delayMs) }),
      ...(priority && { priority }),
      ...(isFirst === true && { lifo: true }),
      // By default BullMQ would hand on the trace of the code that puts the job, and of each attempt to the next one.
      ...(isCarrier(trace) && { telemetry: { metadata: JSON.stringify(trace), omitContext: true } }),
    },
  };
}
