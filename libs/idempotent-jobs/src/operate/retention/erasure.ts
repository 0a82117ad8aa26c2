import { Injectable } from '@nestjs/common';
import type { Job } from 'bullmq';
import type { QueuePort } from '../../bullmq/queue-port.js';
import { DEAD_LETTER_JOB_NAME, type DeadLetterMessage } from '../../operation/dead-letter-message.js';
import { QueueRegistry } from '../../producer/queue-registry.js';
import { tenantOfBundled, tenantsOfJob } from '../../worker/identify/identify.js';
import { BundleHost } from '../../worker/host/bundle-host.js';
import { readBundle } from '../../producer/bundle.js';
import { WorkerLifecycle } from '../../worker/host/worker.lifecycle.js';
import { UsageError } from '../../operation/errors.js';
import type { Author } from '../../operation/ledger-action.js';
import { Database } from '../../ledger/postgres/database.js';
import { lookedUpByKey, type Statement, statement } from '../../ledger/postgres/statement.js';
import { INTO_AUDIT } from '../../ledger/record/audit.js';

/** Counts what there is of a tenant. */
const COUNT_TENANT = statement(
  'count_tenant',
  `
SELECT
  (SELECT count(*)::integer FROM {schema}.job_outcomes WHERE tenant_id = :tenantId) AS operations,
  (SELECT count(*)::integer FROM {schema}.job_outcomes
   WHERE tenant_id = :tenantId AND lease_expires_at > clock_timestamp()) AS running,
  (SELECT count(*)::integer FROM {schema}.dead_letters WHERE tenant_id = :tenantId) AS letters,
  (SELECT count(*)::integer FROM {schema}.job_attempts WHERE tenant_id = :tenantId) AS attempts
`,
);

/**
 * Gives up a tenant's open operations, in batches: a worker that takes one of their jobs from now on finds a dead
 * operation and runs nothing. Running operations are left to end.
 */
const GIVE_UP_TENANT = statement(
  'give_up_tenant',
  `
WITH open AS (
  SELECT tenant_id, operation_key FROM {schema}.job_outcomes
  WHERE tenant_id = :tenantId AND (
    status IN ('pending', 'retrying') OR (status IN ('running', 'in_doubt') AND COALESCE(lease_expires_at <= clock_timestamp(), true)))
  ORDER BY operation_key LIMIT :limit
  FOR UPDATE
), given_up AS (
  UPDATE {schema}.job_outcomes o SET
    status = 'dead', fencing_token = o.fencing_token + 1, payload = NULL, lease_expires_at = NULL, dispatch_due_at = NULL,
    reconcile_due_at = NULL, settled_at = clock_timestamp()
  FROM open
  WHERE o.tenant_id = open.tenant_id AND o.operation_key = open.operation_key AND ${lookedUpByKey('open.operation_key')}
  RETURNING 1
)
SELECT count(*)::integer AS rows FROM given_up
`,
);

/** Deletes a tenant's settled operations with their attempts, in batches. */
const ERASE_OPERATIONS = statement(
  'erase_operations',
  `
WITH settled AS (
  SELECT tenant_id, operation_key FROM {schema}.job_outcomes
  WHERE tenant_id = :tenantId AND status IN ('completed', 'dead')
  LIMIT :limit
  FOR UPDATE
), attempts AS (
  DELETE FROM {schema}.job_attempts a USING settled s
  WHERE a.tenant_id = s.tenant_id AND a.operation_key = s.operation_key
  RETURNING 1
), erased AS (
  DELETE FROM {schema}.job_outcomes o USING settled s
  WHERE o.tenant_id = s.tenant_id AND o.operation_key = s.operation_key AND ${lookedUpByKey('s.operation_key')}
  RETURNING 1
)
SELECT (SELECT count(*) FROM erased)::integer AS rows, (SELECT count(*) FROM attempts)::integer AS attempts
`,
);

/** Deletes a tenant's letters, in batches. */
const ERASE_LETTERS = statement(
  'erase_letters',
  `
WITH erased AS (
  DELETE FROM {schema}.dead_letters
  WHERE id IN (SELECT id FROM {schema}.dead_letters WHERE tenant_id = :tenantId LIMIT :limit)
  RETURNING 1
)
SELECT count(*)::integer AS rows FROM erased
`,
);

/** Removes the tenant from the audit, which keeps who acted and when, and records the erasure itself. */
const ERASE_TRACES = statement(
  'erase_traces',
  `
WITH redrives AS (
  UPDATE {schema}.dead_letter_redrives SET filter = '{}', note = '(erased)', ended_because = NULL
  WHERE filter->>'tenantId' = :tenantId
  RETURNING id
), actions AS (
  UPDATE {schema}.job_actions
  SET tenant_id = NULL, operation_key = NULL, letter_id = NULL, note = '(erased)', details = NULL
  WHERE action <> 'erase' AND (
    tenant_id = :tenantId OR details->>'tenantId' = :tenantId OR redrive_id IN (SELECT id FROM redrives))
)
${INTO_AUDIT}
VALUES ('erase', :actor, :note, NULL, NULL, NULL, :tenantId, NULL, :erased::json)
`,
);

/** What was erased of a tenant, or would be. */
export interface Erased {
  readonly operations: number;
  readonly letters: number;
  readonly attempts: number;
  /** BullMQ jobs, on the queues and dead-letter queues that are registered here. */
  readonly jobs: number;
}

/** A queue that may hold jobs of the tenant. */
interface ErasableQueue {
  readonly port: QueuePort;
  readonly deadLetterPort: QueuePort;
  /** How many of a job's operations are the tenant's: more than one only in a bundle. */
  readonly operationsIn: (job: Job, tenantId: string) => number;
}

/**
 * Removes a tenant. First its letters are deleted, so that no redrive brings an operation back. Then its operations are
 * given up, so that a worker that takes a job finds a dead operation and runs nothing. Then its jobs are removed. The
 * operations' rows, which keep jobs from running, are deleted only when no worker holds such a job any more. After a
 * crash at any point, running it again finishes the erasure.
 */
@Injectable()
export class Erasure {
  constructor(
    private readonly database: Database,
    private readonly queues: QueueRegistry,
    private readonly workers: WorkerLifecycle,
    private readonly bundles: BundleHost,
  ) {}

  /** The queues that are registered here. */
  #queues(): ErasableQueue[] {
    const { queues, workers } = this;
    return queues.names.map((name) => {
      const rule = workers.running.find(({ rules }) => rules.queue === name)?.rules.identify;
      return {
        port: queues.portOf(name) as QueuePort,
        deadLetterPort: queues.portOf(queues.deadLetterQueueOf(name)) as QueuePort,
        operationsIn: (job, tenantId) =>
          tenantsOfJob(job, rule).filter((tenant) => tenant === tenantId).length,
      };
    });
  }

  /** Counts what {@link erase} would remove, and how many running operations and jobs stand against it. */
  async count(tenantId: string): Promise<Erased & { readonly running: number }> {
    const [found] = await this.database.run<Omit<Erased, 'jobs'> & { running: number }>(
      COUNT_TENANT.with({ tenantId }),
    );
    const { operations = 0, letters = 0, attempts = 0, running = 0 } = found ?? {};
    const active = await this.#activeJobs(tenantId);
    const jobs = await this.#jobs('count', tenantId);
    return { operations, letters, attempts, jobs: jobs.done, running: Math.max(running, active) };
  }

  /** @throws UsageError while operations of the tenant run; nothing is erased then */
  async erase(tenantId: string, author: Author): Promise<Erased> {
    const { running } = await this.count(tenantId);
    if (running > 0) throw stillRunning(tenantId, running, 'Nothing was erased.');
    const letters = await this.#inBatches(ERASE_LETTERS, tenantId);
    await this.#inBatches(GIVE_UP_TENANT, tenantId);
    const first = await this.#jobs('remove', tenantId);
    // A worker may have taken a job in between; without its operation's row nothing would keep that job from running.
    if (first.left > 0) throw stillRunning(tenantId, first.left, GIVEN_UP);
    const operations = await this.#inBatches(ERASE_OPERATIONS, tenantId);
    const late = await this.#inBatches(ERASE_LETTERS, tenantId);
    const second = await this.#jobs('remove', tenantId);
    const erased: Erased = {
      operations: operations.rows,
      attempts: operations.attempts,
      letters: letters.rows + late.rows,
      jobs: first.done + second.done,
    };
    const { actor, note } = author;
    await this.database.run(ERASE_TRACES.with({ tenantId, actor, note, erased: JSON.stringify(erased) }));
    const left = await this.count(tenantId);
    const remains = left.operations + left.jobs + left.letters;
    if (remains > 0) throw stillRunning(tenantId, remains, GIVEN_UP);
    return erased;
  }

  async #inBatches(
    statement: Statement<'tenantId' | 'limit'>,
    tenantId: string,
  ): Promise<{ rows: number; attempts: number }> {
    const all = { rows: 0, attempts: 0 };
    for (;;) {
      const [row] = await this.database.run<{ rows: number; attempts?: number }>(
        statement.with({ tenantId, limit: BATCH }),
      );
      all.rows += row?.rows ?? 0;
      all.attempts += row?.attempts ?? 0;
      if ((row?.rows ?? 0) < BATCH) return all;
    }
  }

  async #activeJobs(tenantId: string): Promise<number> {
    let active = 0;
    for (const { port, operationsIn } of this.#queues())
      for await (const job of port.contents.jobs(['active'])) active += operationsIn(job, tenantId);
    return active;
  }

  /** Counts or removes the jobs of the tenant; `left` are those that could not be removed. */
  async #jobs(what: 'count' | 'remove', tenantId: string): Promise<{ done: number; left: number }> {
    const all = { done: 0, left: 0 };
    const messages = new Set<QueuePort>();
    for (const { port, deadLetterPort, operationsIn } of this.#queues()) {
      const isTheirs = (job: Job): boolean => operationsIn(job, tenantId) > 0;
      for (const job of await jobsOf(port, isTheirs)) {
        const operations = operationsIn(job, tenantId);
        if (what === 'count' || (await this.#remove(port, job, isTheirs, tenantId))) all.done += operations;
        else if (await port.contents.holds(job.id as string)) all.left += operations;
      }
      messages.add(deadLetterPort);
    }
    const isTheirMessage = (job: Job): boolean => isMessageOf(job, tenantId);
    for (const port of messages) {
      // A message that a listener is delivering to handlers runs no operation.
      for (const { id } of await jobsOf(port, isTheirMessage))
        if (what === 'count' || (await port.contents.remove(id as string, isTheirMessage))) all.done += 1;
    }
    return all;
  }

  /** The operations of others that were in a bundle with the tenant's go on by themselves. */
  async #remove(
    port: QueuePort,
    job: Job,
    isTheirs: (job: Job) => boolean,
    tenantId: string,
  ): Promise<boolean> {
    const isDone = job.finishedOn !== undefined && job.failedReason === undefined;
    const others = isDone ? [] : (readBundle(job) ?? []).filter((one) => tenantOfBundled(one) !== tenantId);
    await this.bundles.putBack(job, others);
    return port.contents.remove(job.id as string, isTheirs);
  }
}

/** Collects all jobs first: removing jobs while paging would skip some. */
async function jobsOf(port: QueuePort, isMeant: (job: Job) => boolean): Promise<Iterable<Job>> {
  const jobs = new Map<string, Job>();
  for await (const job of port.contents.jobs())
    if (job.id !== undefined && isMeant(job)) jobs.set(job.id, job);
  return jobs.values();
}

function isMessageOf(job: Job, tenantId: string): boolean {
  return (
    job.name === DEAD_LETTER_JOB_NAME &&
    (job.data as Partial<DeadLetterMessage> | null)?.tenantId === tenantId
  );
}

const BATCH = 1000;
const GIVEN_UP = 'Its operations are given up and will not run; erase again to finish.';

function stillRunning(tenantId: string, running: number, consequence: string): UsageError {
  return new UsageError(
    `${running} operations or jobs of tenant "${tenantId}" are under way, or were enqueued meanwhile. Stop what enqueues for it and wait for them to end. ${consequence}`,
  );
}
