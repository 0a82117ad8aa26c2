import { statement } from '../postgres/statement.js';

/*
 * What is past its time, in small batches, each a transaction of its own. SKIP LOCKED: a row that somebody is at is left
 * for the next time, so that pruning waits for no claim, and no claim for more than one batch.
 */

/**
 * Completed, or discarded, operations past their retention, with their attempts. Parameters: how many, grace in ms. The
 * grace keeps a row for a while after a job of its age has ceased to be run. An operation with an open letter stays.
 */
export const PRUNE_OPERATIONS = statement(
  'prune_operations',
  `
WITH expired AS (
  SELECT o.tenant_id, o.operation_key
  FROM {schema}.job_outcomes o
  WHERE o.expires_at <= clock_timestamp() - $2::float8 * interval '1 millisecond'
    AND NOT EXISTS (
      SELECT FROM {schema}.dead_letters l
      WHERE l.tenant_id = o.tenant_id AND l.operation_key = o.operation_key AND l.resolved_at IS NULL
    )
  ORDER BY o.expires_at
  LIMIT $1
  FOR UPDATE OF o SKIP LOCKED
), attempts AS (
  DELETE FROM {schema}.job_attempts a USING expired e
  WHERE a.tenant_id = e.tenant_id AND a.operation_key = e.operation_key
), pruned AS (
  DELETE FROM {schema}.job_outcomes o USING expired e
  WHERE o.tenant_id = e.tenant_id AND o.operation_key = e.operation_key
  RETURNING 1
)
SELECT count(*)::integer AS rows FROM pruned
`,
);

/** Resolved letters past the retention of their queue. Parameters: how many, retention in ms where the queue has told none. */
export const PRUNE_LETTERS = statement(
  'prune_letters',
  `
WITH expired AS (
  SELECT l.id
  FROM {schema}.dead_letters l LEFT JOIN {schema}.job_queues q ON q.queue = l.queue
  WHERE l.resolved_at <= clock_timestamp() - COALESCE(q.letter_retention_ms, $2::float8) * interval '1 millisecond'
  LIMIT $1
  FOR UPDATE OF l SKIP LOCKED
), pruned AS (
  DELETE FROM {schema}.dead_letters l USING expired e WHERE l.id = e.id RETURNING 1
)
SELECT count(*)::integer AS rows FROM pruned
`,
);

/** How much there is to prune. Parameters: grace in ms, retention of letters in ms where the queue has told none. */
export const COUNT_PRUNABLE = statement(
  'count_prunable',
  `
SELECT
  (SELECT count(*)::integer FROM {schema}.job_outcomes o
   WHERE o.expires_at <= clock_timestamp() - $1::float8 * interval '1 millisecond' AND NOT EXISTS (
     SELECT FROM {schema}.dead_letters l
     WHERE l.tenant_id = o.tenant_id AND l.operation_key = o.operation_key AND l.resolved_at IS NULL)) AS operations,
  (SELECT count(*)::integer FROM {schema}.dead_letters l LEFT JOIN {schema}.job_queues q ON q.queue = l.queue
   WHERE l.resolved_at <= clock_timestamp() - COALESCE(q.letter_retention_ms, $2::float8) * interval '1 millisecond') AS letters
`,
);
