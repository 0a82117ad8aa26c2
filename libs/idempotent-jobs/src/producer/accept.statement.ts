import { rowsOf, statement } from '../ledger/postgres/statement.js';

/**
 * (none) → pending: writes the intent to run operations, once each.
 *
 * Parameters: queue, then parallel arrays: tenant, key, job name, job id, fingerprint, payload as JSON text,
 * priority, delay in ms, deadline, trace context; and, where the same transaction puts them on their queue, after how
 * many ms they are put there again (null: they are due for the dispatcher at once); in an array again, their retry
 * policies; and how long a row that a rival is inserting is waited for (null: as the transaction has it). One row per element comes back; `is_new` tells whether this
 * statement wrote it. Otherwise the columns show the operation that has the key; they are null when a rival has
 * written it since the statement's snapshot, and the caller looks again.
 *
 * Safe under concurrency: rivals meet on the unique row; ON CONFLICT DO NOTHING waits for an uncommitted one, and fails
 * with a lock timeout where that does not come in time.
 */
export const ACCEPT = statement(
  'accept',
  `
WITH patience AS MATERIALIZED (
  SELECT set_config('lock_timeout', COALESCE($14, current_setting('lock_timeout')), true) AS lock_timeout
), asked AS (
  SELECT a.* FROM patience CROSS JOIN ${rowsOf(
    '$2::text[]',
    '$3::text[]',
    '$4::text[]',
    '$5::text[]',
    '$6::text[]',
    '$7::text[]',
    '$8::integer[]',
    '$9::float8[]',
    '$10::timestamptz[]',
    '$11::text[]',
    '$13::text[]',
  )} AS a (
    tenant_id, operation_key, job_name, job_id, fingerprint, payload, priority, delay_ms, deadline_at, trace_context,
    retry_policy, n
  )
), accepted AS (
  INSERT INTO {schema}.job_outcomes (
    tenant_id, operation_key, origin, queue, job_name, job_id, fingerprint, status, payload, priority, available_at, deadline_at,
    has_own_deadline, trace_context, retry_policy, dispatch_due_at, dispatches
  )
  SELECT
    tenant_id, operation_key, 'job', $1, job_name, job_id, fingerprint, 'pending', payload::json, priority,
    clock_timestamp() + delay_ms * interval '1 millisecond', deadline_at,
    deadline_at IS NOT NULL, trace_context::json, retry_policy,
    CASE
      WHEN $12::float8 IS NULL THEN clock_timestamp()
      ELSE clock_timestamp() + (COALESCE(delay_ms, 0) + $12) * interval '1 millisecond'
    END,
    CASE WHEN $12 IS NULL THEN 0 ELSE 1 END
  FROM asked
  ORDER BY tenant_id, operation_key
  ON CONFLICT (tenant_id, operation_key) DO NOTHING
  RETURNING tenant_id, operation_key, job_id, created_at
)
SELECT
  acc.tenant_id IS NOT NULL AS is_new,
  COALESCE(acc.job_id, o.job_id) AS job_id,
  EXTRACT(EPOCH FROM acc.created_at)::float8 * 1000 AS row_ms,
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

/** Wakes the dispatchers of all instances when the surrounding transaction commits. Parameters: channel, queue. */
export const ANNOUNCE = statement('announce', 'SELECT pg_notify($1, $2)');
