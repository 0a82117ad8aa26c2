import { inMs, locked, lookedUpByKey, rowsOf, statement } from '../postgres/statement.js';

/** SET list of a row that becomes completed. The end also resolves a doubt that an earlier attempt may have left. */
export const COMPLETED = `status = 'completed', settled_at = clock_timestamp(), error = NULL, payload = NULL,
    doubt_since = NULL, doubted_at = NULL, reconcile_due_at = NULL, lease_expires_at = NULL, dispatch_due_at = NULL`;

/**
 * The part of a WITH that completes operations: running → completed, for many at once.
 *
 * `unwritten` has a row, with its number, for what was not written. `is_recorded` is false when the lease was lost: the row
 * has another token, or it is no longer running. A repeat after a lost answer finds the row completed under its own token
 * and reports it as recorded. `is_locked` means that another transaction holds the row: nothing was written, and the caller
 * asks again.
 *
 * No row is waited for (SKIP LOCKED): one locked row must not keep the other outcomes from being recorded.
 */
export const COMPLETING = `ended AS (
  SELECT e.ended_tenant_id AS tenant_id, e.ended_key AS operation_key, e.token, e.result, e.retention_ms, e.result_omitted, e.degraded, e.n
  FROM ${rowsOf('e', 'endedTenantId text', 'endedKey text', 'token bigint', 'result text', 'retentionMs float8', 'resultOmitted text', 'degraded text')}
), held AS MATERIALIZED (
  ${locked('ended a', `o.fencing_token = a.token AND o.status = 'running'`)}
), completed AS (
  UPDATE {schema}.job_outcomes o SET
    ${COMPLETED},
    result           = a.result::json,
    result_omitted   = a.result_omitted,
    degraded         = a.degraded,
    expires_at       = ${inMs('a.retention_ms')}
  FROM held a
  WHERE o.tenant_id = a.tenant_id AND o.operation_key = a.operation_key AND ${lookedUpByKey('a.operation_key')}
    AND o.fencing_token = a.token AND o.status = 'running'
  RETURNING a.n
), unwritten AS (
  SELECT
    a.n::integer,
    COALESCE(o.status = 'completed', false) AS is_recorded,
    COALESCE(o.status = 'running', false) AS is_locked
  FROM ended a
  LEFT JOIN LATERAL (
    SELECT o.status FROM {schema}.job_outcomes o
    WHERE o.tenant_id = a.tenant_id AND o.operation_key = a.operation_key AND o.fencing_token = a.token
    LIMIT 1
  ) o ON true
  WHERE a.n NOT IN (SELECT n FROM completed)
)` as const;

/** Completes operations. One row for each that was not written: see {@link COMPLETING}. */
export const COMPLETE = statement('complete', `WITH ${COMPLETING} SELECT * FROM unwritten`, 'record');

/**
 * Completes an operation that this transaction has claimed. No row comes back when the claim was lost: committed or rolled
 * back since, or not this transaction's. There is nobody to wait for, because the transaction holds its row since the claim.
 */
export const COMPLETE_OWN = statement(
  'complete_own',
  `
UPDATE {schema}.job_outcomes o SET
    ${COMPLETED},
    result           = :result::json,
    result_omitted   = :resultOmitted,
    degraded         = :degraded,
    expires_at       = ${inMs(':retentionMs::float8')}
WHERE o.tenant_id = :tenantId AND o.operation_key = :operationKey AND o.fencing_token = :token::bigint AND o.status = 'running'
  AND o.xmin = pg_current_xact_id_if_assigned()::xid
RETURNING true
`,
  'record',
);
