import { Injectable } from '@nestjs/common';
import { LibraryLog } from '../../events/library-log.js';
import { Database } from '../../ledger/postgres/database.js';
import { NOW, lookedUpByKey, type Statement, statement } from '../../ledger/postgres/statement.js';

/*
 * Deletes what is past its retention, in small batches, each in a transaction of its own. SKIP LOCKED: a row that another
 * transaction has locked is left for the next time, so that pruning waits for no claim, and a claim at most for one
 * batch.
 */

/** For operation `o`: whether it may be pruned. */
const IS_FORGETTABLE = `
    o.expires_at <= ${NOW}
    AND (o.origin = 'call' OR EXISTS (SELECT FROM {schema}.job_queues q WHERE q.queue = o.queue))
    AND NOT EXISTS (
      SELECT FROM {schema}.dead_letters l
      WHERE l.tenant_id = o.tenant_id AND l.operation_key = o.operation_key AND l.resolved_at IS NULL
    )
    -- A step is remembered for as long as its operation, which may still be run again. With OFFSET 0 the operation of each is
    -- looked up, instead of the keys of all being hashed.
    AND (o.step_of IS NULL OR NOT EXISTS (
      SELECT FROM {schema}.job_outcomes p WHERE p.tenant_id = o.tenant_id AND p.operation_key = o.step_of OFFSET 0))`;

/**
 * Deletes completed or discarded operations past their retention, with their attempts. An operation with an open letter
 * stays.
 *
 * Pruning raises the queue's mark, from which later jobs can tell that their operation may have been pruned. The mark
 * lies an hour before the end of the pruned operation, or a quarter of its retention if that is less: a producer's clock
 * may be off by that much. A queue that no application has registered has no mark, so its operations are kept, except
 * calls.
 */
const PRUNE_OPERATIONS = statement(
  'prune_operations',
  `
WITH expired AS (
  SELECT o.tenant_id, o.operation_key
  FROM {schema}.job_outcomes o
  WHERE ${IS_FORGETTABLE}
  ORDER BY o.expires_at
  LIMIT :limit
  FOR UPDATE OF o SKIP LOCKED
), steps AS (
  -- What never finished, of operations that go: nobody will run it any more. A doubt waits for its person.
  SELECT o.tenant_id, o.operation_key
  FROM {schema}.job_outcomes o JOIN expired e ON o.tenant_id = e.tenant_id AND o.step_of = e.operation_key
  WHERE o.status <> 'in_doubt' AND ${lookedUpByKey('e.operation_key')}
    AND NOT (
      o.repeatable_until <= clock_timestamp() AND (o.status = 'running' OR (o.status = 'retrying' AND o.doubt_since IS NOT NULL))
    )
  FOR UPDATE OF o SKIP LOCKED
), attempts AS (
  DELETE FROM {schema}.job_attempts a USING (SELECT * FROM expired UNION SELECT * FROM steps) e
  WHERE a.tenant_id = e.tenant_id AND a.operation_key = e.operation_key
), steps_pruned AS (
  DELETE FROM {schema}.job_outcomes o USING steps s
  WHERE o.tenant_id = s.tenant_id AND o.operation_key = s.operation_key AND ${lookedUpByKey('s.operation_key')}
), pruned AS (
  DELETE FROM {schema}.job_outcomes o USING expired e
  WHERE o.tenant_id = e.tenant_id AND o.operation_key = e.operation_key AND ${lookedUpByKey('e.operation_key')}
  RETURNING o.queue, o.settled_at + LEAST(interval '1 hour', (o.expires_at - o.settled_at) / 4) AS until
), mark AS (
  -- In the order of their names: others prune as well.
  SELECT queue FROM {schema}.job_queues WHERE queue IN (SELECT queue FROM pruned) ORDER BY queue FOR UPDATE
), marked AS (
  UPDATE {schema}.job_queues q SET forgotten_until = GREATEST(q.forgotten_until, p.until)
  FROM (SELECT queue, max(until) AS until FROM pruned GROUP BY queue) p JOIN mark m ON m.queue = p.queue
  WHERE q.queue = p.queue AND q.forgotten_until IS DISTINCT FROM GREATEST(q.forgotten_until, p.until)
)
SELECT count(*)::integer AS rows FROM pruned
`,
);

/** Deletes resolved letters past the retention of their queue. */
const PRUNE_LETTERS = statement(
  'prune_letters',
  `
WITH expired AS (
  SELECT l.id
  FROM {schema}.job_queues q CROSS JOIN LATERAL (
    SELECT id FROM {schema}.dead_letters
    WHERE queue = q.queue AND resolved_at <= ${NOW} - q.letter_retention_ms * interval '1 millisecond'
    ORDER BY resolved_at LIMIT :limit
    FOR UPDATE SKIP LOCKED
  ) l
  LIMIT :limit
), pruned AS (
  DELETE FROM {schema}.dead_letters l USING expired e WHERE l.id = e.id RETURNING 1
)
SELECT count(*)::integer AS rows FROM pruned
`,
);

/** Counts what there is to prune. */
const COUNT_PRUNABLE = statement(
  'count_prunable',
  `
SELECT
  (SELECT count(*)::integer FROM {schema}.job_outcomes o
   WHERE ${IS_FORGETTABLE}) AS operations,
  (SELECT count(*)::integer FROM {schema}.dead_letters l JOIN {schema}.job_queues q ON q.queue = l.queue
   WHERE l.resolved_at <= ${NOW} - q.letter_retention_ms * interval '1 millisecond') AS letters
`,
);

/** How many rows were pruned, or would be. */
export interface Pruned {
  readonly operations: number;
  readonly letters: number;
}

/** Prunes what is past its retention, at intervals and on request. Any number of processes may do so at the same time. */
@Injectable()
export class Pruner {
  #timer: NodeJS.Timeout | undefined;
  #pruning: Promise<unknown> | undefined;
  #isStopped = false;

  constructor(
    private readonly database: Database,
    private readonly log: LibraryLog,
  ) {}

  start(everyMs: number): void {
    this.#timer = setInterval(() => {
      this.#pruning ??= this.prune()
        .catch((error: unknown) =>
          this.log.trouble('Pruning was interrupted; it goes on with the next time', error),
        )
        .finally(() => (this.#pruning = undefined));
    }, everyMs);
    this.#timer.unref();
  }

  /** Finishes the batch under way. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    clearInterval(this.#timer);
    await this.#pruning;
  }

  async prune(): Promise<Pruned> {
    return {
      operations: await this.#inBatches(PRUNE_OPERATIONS),
      letters: await this.#inBatches(PRUNE_LETTERS),
    };
  }

  /** Counts what {@link prune} would remove. */
  async count(): Promise<Pruned> {
    const [row] = await this.database.run<Pruned>(COUNT_PRUNABLE.with({}));
    return row as Pruned;
  }

  async #inBatches(statement: Statement<'limit'>): Promise<number> {
    let all = 0;
    while (!this.#isStopped) {
      const startedAt = performance.now();
      const [row] = await this.database.run<{ rows: number }>(statement.with({ limit: BATCH }));
      const rows = row?.rows ?? 0;
      all += rows;
      if (rows < BATCH) break;
      // Rests for as long as the batch took: pruning never takes more than half of the database's time.
      await new Promise((resolve) => setTimeout(resolve, performance.now() - startedAt));
    }
    return all;
  }
}

const BATCH = 500;
