import { inMs, ms, rowsOf, statement } from '../ledger/postgres/statement.js';

/**
 * (none) → pending: writes requested operations, once each.
 *
 * One row per element comes back; `is_new` says whether this statement wrote it. Otherwise the columns show the operation
 * that has the key. They are null when a rival has written it since the statement's snapshot, and the caller asks again.
 *
 * Safe under concurrency: rivals meet on the unique index. ON CONFLICT DO NOTHING waits for an uncommitted row, and fails
 * with a lock timeout when that transaction does not end in time.
 *
 * NULL for `:redispatchAfterMs` makes them due for the dispatcher at once; otherwise the same transaction puts them on
 * their queue. NULL for `:lockTimeout` keeps the transaction's own.
 */
export const ACCEPT = statement(
  'accept',
  `
WITH patience AS MATERIALIZED (
  SELECT set_config('lock_timeout', COALESCE(:lockTimeout, current_setting('lock_timeout')), true) AS lock_timeout
), asked AS (
  SELECT a.* FROM patience CROSS JOIN ${rowsOf('a', 'tenantId text', 'operationKey text', 'jobName text', 'jobId text', 'fingerprint text', 'payload text', 'priority integer', 'delayMs float8', 'deadlineAt timestamptz', 'traceContext text', 'retryPolicy text')}
), accepted AS (
  INSERT INTO {schema}.job_outcomes (
    tenant_id, operation_key, origin, queue, job_name, job_id, fingerprint, status, payload, priority, available_at, deadline_at,
    has_own_deadline, trace_context, retry_policy, dispatch_due_at, dispatches
  )
  SELECT
    tenant_id, operation_key, 'job', :queue, job_name, job_id, fingerprint, 'pending', payload::json, priority,
    ${inMs('delay_ms')}, deadline_at,
    deadline_at IS NOT NULL, trace_context::json, retry_policy,
    CASE
      WHEN :redispatchAfterMs::float8 IS NULL THEN clock_timestamp()
      ELSE clock_timestamp() + (COALESCE(delay_ms, 0) + :redispatchAfterMs) * interval '1 millisecond'
    END,
    CASE WHEN :redispatchAfterMs IS NULL THEN 0 ELSE 1 END
  FROM asked
  ORDER BY tenant_id, operation_key
  ON CONFLICT (tenant_id, operation_key) DO NOTHING
  RETURNING tenant_id, operation_key, job_id, created_at
)
SELECT
  acc.tenant_id IS NOT NULL AS is_new,
  COALESCE(acc.job_id, o.job_id) AS job_id,
  ${ms('acc.created_at')} AS row_ms,
  o.fingerprint,
  o.queue,
  o.status,
  o.result
FROM asked a
LEFT JOIN accepted acc ON acc.operation_key = a.operation_key AND acc.tenant_id = a.tenant_id
LEFT JOIN LATERAL (
  SELECT o.job_id, o.fingerprint, o.queue, o.status, o.result::text AS result
  FROM {schema}.job_outcomes o
  WHERE acc.tenant_id IS NULL AND o.tenant_id = a.tenant_id AND o.operation_key = a.operation_key
  OFFSET 0
) o ON true
ORDER BY a.n
`,
);

/** Wakes the dispatchers of all instances when the surrounding transaction commits. */
export const ANNOUNCE = statement('announce', 'SELECT pg_notify(:channel, :queue)');
