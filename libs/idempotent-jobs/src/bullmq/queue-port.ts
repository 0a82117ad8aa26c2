import {
  type BackendFactory,
  ErrorCode,
  getNextMillis,
  type Job,
  type JobsOptions,
  type JobType,
  type Queue,
  type RedisQueueBackend,
  type RepeatOptions,
  type Worker,
} from 'bullmq';
import { UsageError } from '../operation/errors.js';
import { messageOf } from '../operation/message-of.js';
import type { Queryable } from '../postgres/database.js';
import { Location, nameDatabase } from '../postgres/location.js';
import type { JobRetention } from '../retention/retention.options.js';
import { BACKOFF_TYPE, CARRIED_ATTEMPTS } from './retry-carrier.js';
import { postgresOf, withQueueInTransaction } from './transaction-port.js';

/** A job on its way to a queue. */
export interface OutgoingJob {
  readonly name: string;
  readonly jobId: string;
  readonly data: unknown;
  readonly delayMs: number;
  readonly priority: number | undefined;
  /** It has been on the queue before. BullMQ may hold it as finished, while the ledger still waits for it. */
  readonly wasPut?: boolean;
}

/** BullMQ types its classes for Redis, whichever backend they have. */
type MakeBackend = BackendFactory<RedisQueueBackend>;

/** A BullMQ queue, reduced to what the library asks of it, the same on both backends. */
export class QueuePort {
  readonly #location: Location;

  constructor(readonly bullmq: Queue) {
    this.#location = new Location(() => this.#nameDatabase());
  }

  get name(): string {
    return this.bullmq.name;
  }

  /** What a worker of this queue is to be made with, so that it looks where the queue's jobs are. */
  get makeBackend(): MakeBackend {
    return (this.bullmq as unknown as { backendFactory: MakeBackend }).backendFactory;
  }

  get backend(): 'redis' | 'postgres' {
    return postgresOf(this.bullmq) === undefined ? 'redis' : 'postgres';
  }

  /** How large a job's data may be as JSON in UTF-8, in bytes, by the queue's own options; BullMQ refuses larger ones. */
  get maxDataBytes(): number | undefined {
    return this.bullmq.defaultJobOptions.sizeLimit;
  }

  /** Whether BullMQ keeps the queue in the database of that name, as `nameDatabase` names it. */
  async isIn(databaseName: string): Promise<boolean> {
    return this.backend === 'postgres' && (await this.#location.is(databaseName)) === true;
  }

  /**
   * Puts jobs on the queue. Putting one again while BullMQ still has to run it changes nothing; one that was put before
   * and that BullMQ holds as finished starts anew. Jobs that carry no operation's retries are dead letters.
   */
  async put(jobs: readonly OutgoingJob[], carriesRetries = true): Promise<void> {
    await Promise.all(jobs.flatMap(({ jobId, wasPut }) => (wasPut === true ? [this.#clear(jobId)] : [])));
    await this.bullmq.addBulk(jobs.map((job) => entryOf(job, carriesRetries)));
  }

  /** Puts jobs on the queue in a transaction of the database that it {@link isIn}: there if and only if it commits. */
  async putWithin(connection: Queryable, jobs: readonly OutgoingJob[]): Promise<void> {
    await withQueueInTransaction(this.bullmq, connection, async (queue) => {
      const [first, ...rest] = jobs.map((job) => entryOf(job, true));
      // BullMQ adds many by way of temporary tables, which a transaction with one job had better be spared.
      if (rest.length === 0 && first !== undefined) await queue.add(first.name, first.data, first.opts);
      else await queue.addBulk([first, ...rest] as Parameters<Queue['addBulk']>[0]);
    });
  }

  /**
   * Removes a finished job, which would keep its id from being put again. Between the look and the removal somebody else
   * may have revived it: a worker that has it by then holds its lock, and a locked job is not removed; one that still
   * waits is added again right after.
   */
  async #clear(jobId: string): Promise<void> {
    const state = await this.bullmq.getJobState(jobId);
    // Its children, if it has any, are somebody else's operations.
    if (state === 'completed' || state === 'failed')
      await this.bullmq.remove(jobId, { removeChildren: false });
  }

  /** The job as a node of a flow, with the options that the queue gives to all its jobs. */
  nodeOf(job: OutgoingJob): {
    name: string;
    queueName: string;
    prefix?: string;
    data: unknown;
    opts: JobsOptions;
  } {
    const { prefix } = this.bullmq.opts;
    const { name, data, opts } = entryOf(job, true);
    return {
      name,
      queueName: this.name,
      ...(prefix !== undefined && { prefix }),
      data,
      opts: { ...this.bullmq.defaultJobOptions, ...opts },
    };
  }

  /**
   * Makes or replaces a scheduler. Gives the job of its next iteration; undefined: there will be none.
   *
   * @throws UsageError for a pattern or time zone that BullMQ cannot read
   */
  async schedule(
    schedulerId: string,
    repeat: RepeatOptions,
    { name, data, priority }: Pick<OutgoingJob, 'name' | 'data' | 'priority'>,
  ): Promise<Job | undefined> {
    this.#assertReadable(repeat);
    const template = { name, data, opts: { ...RETRY_CARRIER, ...(priority && { priority }) } };
    for (let tries = 1; ; tries += 1) {
      try {
        return await this.bullmq.upsertJobScheduler(schedulerId, repeat, template);
      } catch (error) {
        // Another process was making the same scheduler. Tried again, its pending job is seen, and replaced.
        const { code } = error as { code?: unknown };
        const hasMetRival =
          code === ErrorCode.SchedulerJobIdCollision || code === ErrorCode.SchedulerJobSlotsBusy;
        if (!hasMetRival || tries === MAX_SCHEDULE_TRIES) throw error;
      }
    }
  }

  #assertReadable(repeat: RepeatOptions): void {
    const { settings } = this.bullmq.opts as { settings?: { repeatStrategy?: unknown } };
    // A strategy of the application reads patterns in its own way.
    if (repeat.pattern === undefined || settings?.repeatStrategy !== undefined) return;
    try {
      getNextMillis(Date.now(), repeat);
    } catch (error) {
      const zone = repeat.tz === undefined ? '' : ` in time zone "${repeat.tz}"`;
      throw new UsageError(
        `BullMQ cannot read the pattern "${repeat.pattern}"${zone} of a schedule: ${messageOf(error)}`,
      );
    }
  }

  /** Ends a scheduler, with the job of its next iteration. False: there was none. */
  async unschedule(schedulerId: string): Promise<boolean> {
    return this.bullmq.removeJobScheduler(schedulerId);
  }

  /** Asks the backend anything cheap; rejects if it does not answer. */
  async ping(): Promise<void> {
    await this.bullmq.isPaused();
  }

  /** Failed jobs, newest first. */
  failedJobs(from: number, to: number): Promise<Job[]> {
    return this.bullmq.getJobs(['failed'], from, to, false);
  }

  /** For how long BullMQ keeps finished jobs, by the options of the queue and of its worker here. */
  jobRetention(worker: Worker | undefined): JobRetention {
    const { removeOnComplete, removeOnFail } = this.bullmq.defaultJobOptions;
    return {
      completedMs: longestAgeMs(removeOnComplete, worker?.opts.removeOnComplete),
      failedMs: longestAgeMs(removeOnFail, worker?.opts.removeOnFail),
    };
  }

  /** All jobs BullMQ holds, in those states or in any. A job that changes its state meanwhile may be missed or come twice. */
  async *jobs(states: readonly JobType[] = STATES): AsyncGenerator<Job> {
    for (const state of states) {
      for (let from = 0; ; from += PAGE) {
        const jobs = await this.bullmq.getJobs([state], from, from + PAGE - 1, true);
        // A job that was removed between listing and reading comes back empty.
        yield* jobs.filter((job) => job !== undefined && job !== null);
        if (jobs.length < PAGE) break;
      }
    }
  }

  /**
   * Whether the job was there and is gone now; a job that a worker holds stays. An iteration of a schedule goes with the
   * schedule, which would make another.
   */
  async remove(jobId: string): Promise<boolean> {
    try {
      const isUnscheduled = await this.#endScheduleOf(jobId);
      return (await this.bullmq.remove(jobId)) === 1 || isUnscheduled;
    } catch {
      return false;
    }
  }

  async holds(jobId: string): Promise<boolean> {
    return (await this.bullmq.getJob(jobId)) !== undefined;
  }

  async #endScheduleOf(jobId: string): Promise<boolean> {
    const [kind, schedulerId] = jobId.split(':');
    if (kind !== 'repeat' || schedulerId === undefined) return false;
    const isUnscheduled = await this.unschedule(schedulerId);
    const postgres = postgresOf(this.bullmq);
    // BullMQ 6.7 removes no job here that a scheduler has ever made, so it is told that none has.
    await postgres?.pool.query(
      `UPDATE "${postgres.schema.replaceAll('"', '""')}".job SET scheduler_id = NULL
       WHERE queue = $1 AND id = $2 AND state <> 'active'`,
      [this.name, jobId],
    );
    return isUnscheduled;
  }

  /**
   * How long the job that waits longest has been waiting, in ms; undefined: none waits. On Redis counted from when it was
   * added plus its first delay, since Redis keeps no later time.
   */
  async oldestWaitingMs(): Promise<number | undefined> {
    const addedAt =
      this.backend === 'postgres' ? await this.#oldestOnPostgres() : await this.#oldestOnRedis();
    return addedAt === undefined ? undefined : Math.max(0, Date.now() - addedAt);
  }

  async #oldestOnRedis(): Promise<number | undefined> {
    const heads = await Promise.all([
      this.bullmq.getJobs(['waiting'], 0, 0, true),
      this.bullmq.getJobs(['prioritized'], 0, 0, true),
    ]);
    const ages = heads.flat().map(waitingSince);
    return ages.length === 0 ? undefined : Math.min(...ages);
  }

  /** BullMQ 6.7's getJobs answers with the newest job here, so its table is asked. */
  async #oldestOnPostgres(): Promise<number | undefined> {
    const { pool, schema } = postgresOf(this.bullmq) as NonNullable<ReturnType<typeof postgresOf>>;
    const { rows } = await pool.query(
      `SELECT COALESCE(process_at_ms, added_at_ms) AS since FROM "${schema.replaceAll('"', '""')}".job
       WHERE queue = $1 AND state = 'waiting' ORDER BY priority, seq LIMIT 1`,
      [this.name],
    );
    const since = rows[0]?.since;
    return since === undefined || since === null ? undefined : Number(since);
  }

  async #nameDatabase(): Promise<string> {
    const postgres = postgresOf(this.bullmq);
    if (postgres === undefined) throw new Error(`Queue "${this.name}" is not in Postgres`);
    await this.bullmq.waitUntilReady();
    return nameDatabase(postgres.pool as unknown as Queryable);
  }
}

/** As many processes as may start at one time and be unlucky one after the other. */
const MAX_SCHEDULE_TRIES = 10;

/** The options that make BullMQ carry a job's retries: it must not stop retrying before the ledger does. */
const RETRY_CARRIER: Pick<JobsOptions, 'attempts' | 'backoff'> = {
  attempts: CARRIED_ATTEMPTS,
  backoff: { type: BACKOFF_TYPE },
};

/**
 * Whoever reads a dead-letter queue may fail: ten attempts after 1, 2, 4 … s are nine minutes, enough for a pager to
 * come back. The letter's own attempts are over.
 */
const LETTER_RETRIES: JobsOptions = {
  attempts: 10,
  backoff: { type: 'exponential', delay: 1000, jitter: 0.2 },
};

function entryOf(
  { name, jobId, data, delayMs, priority }: OutgoingJob,
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
    },
  };
}

const STATES = [
  'waiting',
  'prioritized',
  'delayed',
  'waiting-children',
  'active',
  'failed',
  'completed',
] as const;
const PAGE = 500;

/** BullMQ counts ages in seconds. */
function longestAgeMs(...options: unknown[]): number | undefined {
  const ages = options.flatMap((option) => {
    const age = (option as { age?: unknown } | null | undefined)?.age;
    return typeof age === 'number' ? [age * 1000] : [];
  });
  return ages.length === 0 ? undefined : Math.max(...ages);
}

function waitingSince(job: Job): number {
  return job.timestamp + (job.opts.delay ?? 0);
}
