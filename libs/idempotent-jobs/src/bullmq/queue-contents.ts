import { Job, type JobType, type Queue, type Worker } from 'bullmq';
import type { JobRetention } from '../ledger/retention.options.js';
import { postgresOf } from './transaction-port.js';

/** How many jobs a BullMQ queue holds. */
export interface QueueDepth {
  /** Paused and prioritised ones included. */
  readonly waiting: number;
  readonly active: number;
  readonly delayed: number;
  readonly failed: number;
}

/** Where BullMQ keeps a queue in Postgres. */
type PostgresQueue = NonNullable<ReturnType<typeof postgresOf>>;

/** The jobs that BullMQ holds for a queue: to look at, to count and to remove, the same on both backends. */
export class QueueContents {
  constructor(private readonly bullmq: Queue) {}

  /** Failed jobs, newest first. */
  failed(from: number, to: number): Promise<Job[]> {
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
   * schedule, which would make another, if `isMeant` says so of its next iteration: an id tells whose a job is no more than
   * its producer does.
   *
   * In a flow nothing goes with the job: its children run, and its parent waits for it no longer.
   */
  async remove(jobId: string, isMeant: (job: Job) => boolean): Promise<boolean> {
    try {
      const isUnscheduled = await this.#endScheduleOf(jobId, isMeant);
      return (await this.bullmq.remove(jobId, { removeChildren: false })) === 1 || isUnscheduled;
    } catch {
      return false;
    }
  }

  /** On Postgres BullMQ scans all jobs that it holds for the queue. */
  async depth(): Promise<QueueDepth> {
    const {
      waiting = 0,
      paused = 0,
      prioritized = 0,
      active = 0,
      delayed = 0,
      failed = 0,
    } = await this.bullmq.getJobCounts(...COUNTED);
    // What waits on a paused queue is `waiting` on Redis, and `paused` on Postgres.
    return { waiting: waiting + paused + prioritized, active, delayed, failed };
  }

  /** How BullMQ has ended a job; `gone`: it does not have it any more; undefined: it has not. */
  async endOf(jobId: string): Promise<'completed' | 'failed' | 'gone' | undefined> {
    const state = await this.bullmq.getJobState(jobId);
    if (state === 'unknown') return 'gone';
    return state === 'completed' || state === 'failed' ? state : undefined;
  }

  find(jobId: string): Promise<Job | undefined> {
    return this.bullmq.getJob(jobId);
  }

  /** What the library has noted on a job, beside everything that others can write to it. */
  async noteOn(jobId: string): Promise<string | undefined> {
    const postgres = postgresOf(this.bullmq);
    if (postgres === undefined) {
      const client = await this.bullmq.getBackend().client;
      return (await client.hget(this.bullmq.toKey(jobId), NOTE)) ?? undefined;
    }
    const { rows } = await postgres.pool.query(
      `SELECT opts->>$3 AS note FROM ${jobTableOf(postgres)} WHERE queue = $1 AND id = $2`,
      [this.bullmq.name, jobId, NOTE],
    );
    return rows[0]?.note ?? undefined;
  }

  /** In the place of an earlier one. */
  async writeNoteOn(jobId: string, note: string): Promise<void> {
    const postgres = postgresOf(this.bullmq);
    if (postgres === undefined) {
      const client = await this.bullmq.getBackend().client;
      const key = this.bullmq.toKey(jobId);
      // A job that was removed by force does not come back as a note.
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
    // BullMQ 6.7 removes no job here that a scheduler has ever made, so it is told that none has.
    await postgres?.pool.query(
      `UPDATE ${jobTableOf(postgres)} SET scheduler_id = NULL
       WHERE queue = $1 AND id = $2 AND state <> 'active'`,
      [this.bullmq.name, jobId],
    );
    return isUnscheduled;
  }

  /** What a scheduler makes next, by its template; undefined: there is no such scheduler. */
  async #nextOf(schedulerId: string): Promise<Job | undefined> {
    const scheduler = await this.bullmq.getJobScheduler(schedulerId);
    if (scheduler === undefined) return undefined;
    const { name, template, next } = scheduler;
    return new Job(this.bullmq, name, template?.data, template?.opts, `repeat:${schedulerId}:${next}`);
  }

  /**
   * How long the job that waits longest has been waiting, in ms; undefined: none waits. On Redis counted from when it was
   * added plus its first delay, since Redis keeps no later time.
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

  /** BullMQ 6.7's getJobs answers with the newest job here, so its table is asked. */
  async #oldestOnPostgres(postgres: PostgresQueue): Promise<number | undefined> {
    // Its tables are made while the first application starts.
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
/** In Redis a field of the job, in Postgres one of its options. */
const NOTE = 'nestjs-idempotent-jobs';

/** BullMQ's types have forgotten `paused`. */
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
  return `"${schema.replaceAll('"', '""')}".job`;
}

/** The scheduler that an iteration's id names, which may itself have colons; undefined: it is no iteration's id. */
function schedulerIdIn(jobId: string): string | undefined {
  return /^repeat:(.+):[^:]*$/s.exec(jobId)?.[1];
}

function waitingSince(job: Job): number {
  return job.timestamp + (job.opts.delay ?? 0);
}
