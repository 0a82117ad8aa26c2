import type { Job } from 'bullmq';
import type { QueuePort } from '../bullmq/queue-port.js';
import { UsageError } from '../operation/errors.js';
import type { Author } from '../operation/ledger-action.js';
import type { Database } from '../postgres/database.js';
import type { Statement } from '../postgres/statement.js';
import {
  COUNT_TENANT,
  ERASE_LETTERS,
  ERASE_OPERATIONS,
  ERASE_TRACES,
  GIVE_UP_TENANT,
  LETTERS_OF_TENANT,
} from './erase.statements.js';

/** What was erased of a tenant, or would be. */
export interface Erased {
  readonly operations: number;
  readonly letters: number;
  readonly attempts: number;
  /** BullMQ jobs, on queues and dead-letter queues that are registered here. */
  readonly jobs: number;
}

/** A queue that may hold jobs of the tenant. */
export interface ErasableQueue {
  readonly port: QueuePort;
  readonly deadLetterPort: QueuePort;
  /** Whose a job is; undefined: nobody can tell. */
  readonly tenantOf: (job: Job) => string | undefined;
}

/**
 * Removes a tenant: first its operations are given up, so that no job of theirs can run any more whatever happens next;
 * then their jobs go, then the rows, and jobs once more, for those that were put in between. Killed anywhere, it is
 * finished by doing it again.
 */
export class Erasure {
  constructor(
    private readonly database: Database,
    private readonly queues: () => readonly ErasableQueue[],
  ) {}

  /** What {@link erase} would remove. */
  async count(tenantId: string): Promise<Erased & { readonly running: number }> {
    const [found] = await this.database.run<Omit<Erased, 'jobs'> & { running: number }>(COUNT_TENANT, [
      tenantId,
    ]);
    const jobs = await this.#eachJob(tenantId, () => Promise.resolve(true));
    return { ...(found as Omit<Erased, 'jobs'> & { running: number }), jobs };
  }

  /** @throws UsageError while operations of the tenant are running; nothing is erased then */
  async erase(tenantId: string, author: Author): Promise<Erased> {
    const { running } = await this.count(tenantId);
    if (running > 0) throw stillRunning(tenantId, running);
    await this.#inBatches(GIVE_UP_TENANT, tenantId);
    let jobs = await this.#removeJobs(tenantId);
    const operations = await this.#inBatches(ERASE_OPERATIONS, tenantId);
    const letters = await this.#inBatches(ERASE_LETTERS, tenantId);
    jobs += await this.#removeJobs(tenantId);
    const erased: Erased = {
      operations: operations.rows,
      attempts: operations.attempts,
      letters: letters.rows,
      jobs,
    };
    await this.database.run(ERASE_TRACES, [tenantId, author.actor, author.note, JSON.stringify(erased)]);
    const left = await this.count(tenantId);
    if (left.operations > 0) throw stillRunning(tenantId, left.operations);
    return erased;
  }

  async #inBatches(statement: Statement, tenantId: string): Promise<{ rows: number; attempts: number }> {
    const all = { rows: 0, attempts: 0 };
    for (;;) {
      const [row] = await this.database.run<{ rows: number; attempts?: number }>(statement, [
        tenantId,
        BATCH,
      ]);
      all.rows += row?.rows ?? 0;
      all.attempts += row?.attempts ?? 0;
      if ((row?.rows ?? 0) < BATCH) return all;
    }
  }

  async #removeJobs(tenantId: string): Promise<number> {
    const letters = await this.database.run<{ id: string; queue: string }>(LETTERS_OF_TENANT, [tenantId]);
    let removed = await this.#eachJob(tenantId, (port, id) => port.remove(id));
    for (const { port, deadLetterPort } of this.queues()) {
      for (const letter of letters) {
        if (letter.queue === port.name && (await deadLetterPort.remove(letter.id))) removed += 1;
      }
    }
    return removed;
  }

  /** How many jobs of the tenant `visit` has been true for. */
  async #eachJob(
    tenantId: string,
    visit: (port: QueuePort, jobId: string) => Promise<boolean>,
  ): Promise<number> {
    let visited = 0;
    for (const { port, tenantOf } of this.queues()) {
      // Looked through first: removing while paging would skip.
      const ids: string[] = [];
      for await (const job of port.jobs()) {
        if (job.id !== undefined && tenantOf(job) === tenantId) ids.push(job.id);
      }
      for (const id of ids) if (await visit(port, id)) visited += 1;
    }
    return visited;
  }
}

const BATCH = 1000;

function stillRunning(tenantId: string, running: number): UsageError {
  return new UsageError(
    `${running} operations of tenant "${tenantId}" are running or were enqueued meanwhile. Stop what enqueues for it, wait for them to end, and erase again.`,
  );
}
