import { statement } from '../postgres/statement.js';
import { verdictOf, wokenBy } from './bring-back.statement.js';

/*
 * Both close one open letter and settle its operation without running anything. Parameters: letter, actor, note, then as
 * told. One row comes back if the letter exists, with a verdict; all but `allowed` change nothing. Letter and operation are
 * locked before they are judged.
 */

const LOCKED = `
letter AS (
  SELECT * FROM {schema}.dead_letters WHERE id = $1 FOR UPDATE
), operation AS (
  SELECT o.*
  FROM {schema}.job_outcomes o JOIN letter l ON o.tenant_id = l.tenant_id AND o.operation_key = l.operation_key
  FOR UPDATE OF o
)`;

/**
 * in_doubt → completed, on a person's word that the effect happened, with the result they give as JSON text ($4). From
 * then on it is replayed like any other. The token grows, so that a worker that still lives can write nothing. An
 * operation whose row was forgotten gets one again. Retention in ms: $5 where the queue has told none.
 */
export const APPLY = statement(
  'apply',
  `
WITH ${LOCKED}, judged AS (
  SELECT l.*, o.tenant_id IS NOT NULL AS has_row, ${verdictOf(`'applied'`, 'NULL')} AS verdict,
  clock_timestamp() + interval '1 millisecond' * COALESCE(
    (SELECT completed_retention_ms FROM {schema}.job_queues q WHERE q.queue = l.queue), $5::float8
  ) AS keep_until
  FROM letter l LEFT JOIN operation o ON o.tenant_id = l.tenant_id AND o.operation_key = l.operation_key
), applied AS (
  UPDATE {schema}.job_outcomes o SET
    status          = 'completed',
    fencing_token   = o.fencing_token + 1,
    result          = $4::json,
    error           = NULL,
    payload         = NULL,
    doubt_since     = NULL,
    doubted_at      = NULL,
    reconcile_due_at = NULL,
    lease_expires_at = NULL,
    dispatch_due_at = NULL,
    settled_at      = clock_timestamp(),
    expires_at      = j.keep_until
  FROM judged j
  WHERE j.verdict = 'allowed' AND o.tenant_id = j.tenant_id AND o.operation_key = j.operation_key
  RETURNING o.tenant_id, o.step_of
), ${wokenBy('applied')}, remembered AS (
  INSERT INTO {schema}.job_outcomes (
    tenant_id, operation_key, queue, job_name, job_id, fingerprint, status, fencing_token, result, step_of, step, settled_at,
    expires_at
  )
  SELECT tenant_id, operation_key, queue, job_name, job_id, fingerprint, 'completed', fencing_token + 1, $4::json, step_of,
         step, clock_timestamp(), keep_until
  FROM judged WHERE verdict = 'allowed' AND NOT has_row
  ON CONFLICT (tenant_id, operation_key) DO NOTHING
  RETURNING tenant_id
), told AS (
  -- A delivery that has made the row meanwhile is running it.
  SELECT id, queue, tenant_id, operation_key,
         CASE WHEN verdict <> 'allowed' OR has_row OR EXISTS (SELECT FROM remembered) THEN verdict ELSE 'under_way' END AS verdict
  FROM judged
), closed AS (
  UPDATE {schema}.dead_letters l
  SET resolved_at = clock_timestamp(), resolution = 'applied', actor = $2, note = $3,
      dispatch_due_at = CASE WHEN l.dispatches = 0 THEN l.dispatch_due_at END
  FROM told t WHERE l.id = t.id AND t.verdict = 'allowed'
), audited AS (
  INSERT INTO {schema}.job_actions (action, actor, note, queue, letter_id, tenant_id, operation_key)
  SELECT 'resolve_applied', $2, $3, queue, id, tenant_id, operation_key FROM told WHERE verdict = 'allowed'
)
SELECT verdict FROM told
`,
);

/**
 * Closes a letter for good: nothing is run, and its operation, if it is dead or in doubt, stays or becomes dead. It is
 * remembered as long as the letter, and as long as a completed one, so that no stray retry runs it. In ms: $4 where the
 * queue has told neither.
 */
export const DISCARD = statement(
  'discard',
  `
WITH ${LOCKED}, judged AS (
  SELECT *, CASE WHEN resolved_at IS NULL THEN 'allowed' ELSE 'resolved' END AS verdict FROM letter
), ended AS (
  UPDATE {schema}.job_outcomes o SET
    status          = 'dead',
    fencing_token   = o.fencing_token + 1,
    reconcile_due_at = NULL,
    lease_expires_at = NULL,
    payload         = NULL,
    dispatch_due_at = NULL,
    settled_at      = COALESCE(o.settled_at, clock_timestamp()),
    expires_at      = clock_timestamp() + interval '1 millisecond' * COALESCE(
      (SELECT GREATEST(letter_retention_ms, completed_retention_ms) FROM {schema}.job_queues q WHERE q.queue = j.queue),
      $4::float8)
  FROM judged j JOIN operation p ON p.tenant_id = j.tenant_id AND p.operation_key = j.operation_key
  WHERE j.verdict = 'allowed' AND j.reason NOT IN ('idempotency_conflict', 'expired') AND p.status IN ('dead', 'in_doubt')
    AND o.tenant_id = p.tenant_id AND o.operation_key = p.operation_key
  RETURNING o.tenant_id, o.step_of
), ${wokenBy('ended')}, closed AS (
  UPDATE {schema}.dead_letters l
  SET resolved_at = clock_timestamp(), resolution = 'discarded', actor = $2, note = $3,
      dispatch_due_at = CASE WHEN l.dispatches = 0 THEN l.dispatch_due_at END
  FROM judged j WHERE l.id = j.id AND j.verdict = 'allowed'
), audited AS (
  INSERT INTO {schema}.job_actions (action, actor, note, queue, letter_id, tenant_id, operation_key)
  SELECT 'discard', $2, $3, queue, id, tenant_id, operation_key FROM judged WHERE verdict = 'allowed'
)
SELECT verdict FROM judged
`,
);
