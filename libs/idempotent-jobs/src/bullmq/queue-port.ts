import type { Job, JobsOptions, Queue } from 'bullmq';
import { PostgresQueueBackend } from 'bullmq';
import { BACKOFF_TYPE, CARRIED_ATTEMPTS } from './retry-carrier.js';

/** A job on its way to a queue. */
export interface OutgoingJob {
  readonly name: string;
  readonly jobId: string;
  readonly data: unknown;
  readonly delayMs: number;
  readonly priority: number | undefined;
}

/** A BullMQ queue, reduced to what the library asks of it, the same on both backends. */
export class QueuePort {
  constructor(readonly bullmq: Queue) {}

  get name(): string {
    return this.bullmq.name;
  }

  get backend(): 'redis' | 'postgres' {
    return (this.bullmq.getBackend() as unknown) instanceof PostgresQueueBackend ? 'postgres' : 'redis';
  }

  /**
   * Puts jobs on the queue. Putting one again while BullMQ still holds it changes nothing. The attempts are only a
   * carrier: BullMQ must not stop retrying before the ledger does.
   */
  async put(jobs: readonly OutgoingJob[], carryRetries = true): Promise<void> {
    const retries: JobsOptions = carryRetries
      ? { attempts: CARRIED_ATTEMPTS, backoff: { type: BACKOFF_TYPE } }
      : {};
    const entries = jobs.map(({ name, jobId, data, delayMs, priority }) => ({
      name,
      data,
      opts: {
        jobId,
        ...retries,
        ...(delayMs > 0 && { delay: Math.ceil(delayMs) }),
        ...(priority && { priority }),
      },
    }));
    await this.bullmq.addBulk(entries);
  }

  /** Asks the backend anything cheap; rejects if it does not answer. */
  async ping(): Promise<void> {
    await this.bullmq.isPaused();
  }

  /** Failed jobs, newest first. */
  failedJobs(from: number, to: number): Promise<Job[]> {
    return this.bullmq.getJobs(['failed'], from, to, false);
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
    const { connection, schema } = this.bullmq.getBackend() as unknown as {
      connection: {
        pool: { query(text: string, values: unknown[]): Promise<{ rows: { since: string | null }[] }> };
      };
      schema: string;
    };
    const { rows } = await connection.pool.query(
      `SELECT COALESCE(process_at_ms, added_at_ms) AS since FROM "${schema.replaceAll('"', '""')}".job
       WHERE queue = $1 AND state = 'waiting' ORDER BY priority, seq LIMIT 1`,
      [this.name],
    );
    const since = rows[0]?.since;
    return since === undefined || since === null ? undefined : Number(since);
  }
}

function waitingSince(job: Job): number {
  return job.timestamp + (job.opts.delay ?? 0);
}
