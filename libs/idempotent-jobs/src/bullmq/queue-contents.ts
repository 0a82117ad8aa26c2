import { Job, type JobType, type Queue, type Worker } from 'bullmq';
import type { JobRetention } from '../ledger/retention.options.js';
import { redisClientOf } from './backend.js';
import { postgresOf } from './transaction-port.js';
import { quoted } from '../ledger/postgres/sql.js';

/** How many jobs a BullMQ queue holds. */
export interface QueueDepth {
  /** Includes paused and prioritised jobs. */
  readonly waiting: number;
  readonly active: number;
  readonly delayed: number;
  readonly failed: number;
}

/** Where BullMQ keeps a queue in Postgres. */
type PostgresQueue = NonNullable<ReturnType<typeof postgresOf>>;

/** The jobs that BullMQ has for a queue: reads, counts and removes them, in the same way on both backends. */
export class QueueContents {
  constructor(private readonly bullmq: Queue) {}

  /** Failed jobs, newest first. */
  failed(from: number, to: number): Promise<Job[]> {
    return this.bullmq.getJobs(['failed'], from, to, false);
  }

  /** For how long BullMQ keeps finished jobs, in ms, by the options of the queue and of its worker in this process. */
  jobRetention(worker: Worker | undefined): JobRetention {
    const { removeOnComplete, removeOnFail } = this.bullmq.defaultJobOptions;
    return {
      completedMs: longestAgeMs(removeOnComplete, worker?.opts.removeOnComplete),
      failedMs: longestAgeMs(removeOnFail, worker?.opts.removeOnFail),
    };
  }

  /** All jobs that BullMQ has in the given states. A job that changes its state meanwhile may be missed or come twice. */
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
   * Removes a job. True if it was there and is gone now; a job that a worker is running stays. An iteration of a
   * schedule, which would be made anew, is removed with its schedule, but only if `isMeant` accepts the schedule's next
   * iteration: a producer chooses a job's id, so the id does not prove whose job it is.
   *
   * Nothing else of a flow is removed: the job's children run, and its parent no longer waits for it.
   */
  async remove(jobId: string, isMeant: (job: Job) => boolean): Promise<boolean> {
    try {
      const isUnscheduled = await this.#endScheduleOf(jobId, isMeant);
      return (await this.bullmq.remove(jobId, { removeChildren: false })) === 1 || isUnscheduled;
    } catch {
      return false;
    }
  }

  /** Counts the jobs. On Postgres BullMQ scans all jobs of the queue for it. */
  async depth(): Promise<QueueDepth> {
    const {
      waiting = 0,
      paused = 0,
      prioritized = 0,
      active = 0,
      delayed = 0,
      failed = 0,
    } = await this.bullmq.getJobCounts(...COUNTED);
    // Jobs that wait on a paused queue are `waiting` on Redis, and `paused` on Postgres.
    return { waiting: waiting + paused + prioritized, active, delayed, failed };
  }

  /** How BullMQ has ended a job; `gone` if it no longer has the job. Undefined when the job has not ended. */
  async endOf(jobId: string): Promise<'completed' | 'failed' | 'gone' | undefined> {
    const state = await this.bullmq.getJobState(jobId);
    if (state === 'unknown') return 'gone';
    return state === 'completed' || state === 'failed' ? state : undefined;
  }

  find(jobId: string): Promise<Job | undefined> {
    return this.bullmq.getJob(jobId);
  }

  /**
   * The library's note on a job, which nothing that others write to the job (a log line, an error, its data) can make or
   * change. It is removed with the job. Undefined when there is none.
   */
  async noteOn(jobId: string): Promise<string | undefined> {
    const postgres = postgresOf(this.bullmq);
    if (postgres === undefined) {
      const client = await redisClientOf(this.bullmq);
      return (await client.hget(this.bullmq.toKey(jobId), NOTE)) ?? undefined;
    }
    const { rows } = await postgres.pool.query(
      `SELECT opts->>$3 AS note FROM ${jobTableOf(postgres)} WHERE queue = $1 AND id = $2`,
      [this.bullmq.name, jobId, NOTE],
    );
    return rows[0]?.note ?? undefined;
  }

  /** Replaces an earlier note. */
  async writeNoteOn(jobId: string, note: string): Promise<void> {
    const postgres = postgresOf(this.bullmq);
    if (postgres === undefined) {
      const client = await redisClientOf(this.bullmq);
      const key = this.bullmq.toKey(jobId);
      // The note must not bring a job back that was removed by force.
      if ((await client.hexists(key, 'timestamp')) === 1) await client.hset(key, { [NOTE]: note });
      return;
    }
    await postgres.pool.query(
      `UPDATE ${jobTableOf(postgres)} SET opts = opts || jsonb_build_object($3::text, $4::text)
       WHERE queue = $1 AND id = $2`,
      [this.bullmq.name, jobId, NOTE, note],
    );
  }

  async holds(jobId: string): Promise<boolean> {
    return (await this.bullmq.getJob(jobId)) !== undefined;
  }

  async #endScheduleOf(jobId: string, isMeant: (job: Job) => boolean): Promise<boolean> {
    const schedulerId = schedulerIdIn(jobId);
    if (schedulerId === undefined) return false;
    const next = await this.#nextOf(schedulerId);
    const isUnscheduled =
      next !== undefined && isMeant(next) && (await this.bullmq.removeJobScheduler(schedulerId));
    const postgres = postgresOf(this.bullmq);
    // On Postgres BullMQ 6.7 removes no job that a scheduler has made, so the job's link to its scheduler is cleared.
    await postgres?.pool.query(
      `UPDATE ${jobTableOf(postgres)} SET scheduler_id = NULL
       WHERE queue = $1 AND id = $2 AND state <> 'active'`,
      [this.bullmq.name, jobId],
    );
    return isUnscheduled;
  }

  /** The next iteration of a scheduler, by its template. Undefined when the scheduler does not exist. */
  async #nextOf(schedulerId: string): Promise<Job | undefined> {
    const scheduler = await this.bullmq.getJobScheduler(schedulerId);
    if (scheduler === undefined) return undefined;
    const { name, template, next } = scheduler;
    return new Job(this.bullmq, name, template?.data, template?.opts, `repeat:${schedulerId}:${next}`);
  }

  /**
   * How long the job that waits longest has been waiting, in ms. Undefined when none waits. On Redis it counts from
   * when the job was added plus its first delay, since Redis keeps no later time.
   */
  async oldestWaitingMs(): Promise<number | undefined> {
    const postgres = postgresOf(this.bullmq);
    const addedAt =
      postgres === undefined ? await this.#oldestOnRedis() : await this.#oldestOnPostgres(postgres);
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

  /** Reads BullMQ's table, since getJobs of BullMQ 6.7 gives the newest job on Postgres. */
  async #oldestOnPostgres(postgres: PostgresQueue): Promise<number | undefined> {
    // BullMQ makes its tables while the first application starts.
    await this.bullmq.waitUntilReady();
    const { rows } = await postgres.pool.query(
      `SELECT COALESCE(process_at_ms, added_at_ms) AS since FROM ${jobTableOf(postgres)}
       WHERE queue = $1 AND state = 'waiting' ORDER BY priority, seq LIMIT 1`,
      [this.bullmq.name],
    );
    const since = rows[0]?.since;
    return since === undefined || since === null ? undefined : Number(since);
  }
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
/** The note's name: a field of the job in Redis, one of its options in Postgres. */
const NOTE = 'nestjs-idempotent-jobs';

/** BullMQ's types lack `paused`. */
const COUNTED = ['waiting', 'paused', 'prioritized', 'active', 'delayed', 'failed'] as JobType[];

/** BullMQ counts ages in seconds. */
function longestAgeMs(...options: unknown[]): number | undefined {
  const ages = options.flatMap((option) => {
    const age = (option as { age?: unknown } | null | undefined)?.age;
    return typeof age === 'number' ? [age * 1000] : [];
  });
  return ages.length === 0 ? undefined : Math.max(...ages);
}

function jobTableOf({ schema }: PostgresQueue): string {
  return `${quoted(schema)}.job`;
}

/**
 * The scheduler that an iteration's id names; its name may itself contain colons. Undefined when the id is no
 * iteration's.
 */
function schedulerIdIn(jobId: string): string | undefined {
  return /^repeat:(.+):[^:]*$/s.exec(jobId)?.[1];
}

function waitingSince(job: Job): number {
  return job.timestamp + (job.opts.delay ?? 0);
}
