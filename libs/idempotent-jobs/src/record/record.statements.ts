import { statement } from '../postgres/statement.js';

/**
 * running → completed, for many operations at once.
 *
 * Parameters: parallel arrays: tenant, key, token, result as JSON text, retention in ms, why there is no result (null: it
 * is there, or there was none). One row per element comes back: `is_recorded` is false when the lease was lost (another token, or no longer running). A second asking after a
 * lost answer finds the row completed under its own token, which is as good as having written it.
 *
 * Rows are not locked in any order: two batches share a row only where a lease was lost, and Postgres ends a deadlock
 * by failing one of them, whose elements are then asked one by one.
 */
export const COMPLETE = statement(
  'complete',
  `
WITH asked AS (
  SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::float8[], $6::text[])
    WITH ORDINALITY AS a (tenant_id, operation_key, token, result, retention_ms, result_omitted, n)
), completed AS (
  UPDATE {schema}.job_outcomes o SET
    status           = 'completed',
    result           = a.result::json,
    result_omitted   = a.result_omitted,
    error            = NULL,
    payload          = NULL,
    lease_expires_at = NULL,
    dispatch_due_at  = NULL,
    settled_at       = clock_timestamp(),
    expires_at       = clock_timestamp() + a.retention_ms * interval '1 millisecond'
  FROM asked a
  WHERE o.tenant_id = a.tenant_id AND o.operation_key = a.operation_key
    AND o.fencing_token = a.token AND o.status = 'running'
  RETURNING a.n
)
SELECT
  c.n IS NOT NULL OR EXISTS (
    SELECT FROM {schema}.job_outcomes o
    WHERE o.tenant_id = a.tenant_id AND o.operation_key = a.operation_key
      AND o.fencing_token = a.token AND o.status = 'completed'
  ) AS is_recorded
FROM asked a LEFT JOIN completed c ON c.n = a.n
ORDER BY a.n
`,
);

/**
 * running → retrying, in_doubt or dead, with the attempt's record and, when given up, the dead letter; all or nothing.
 *
 * Parameters: tenant, key, token, next status, error, whether the effect may have happened, failure kind, failure
 * reason, delay in ms, letter's reason (null: no letter), letter's payload, versions, error fingerprint. `is_recorded` is false when the
 * lease was lost; a second asking finds the attempt's record under its own token.
 */
export const FAIL = statement(
  'fail',
  `
WITH failed AS (
  UPDATE {schema}.job_outcomes o SET
    status           = $4,
    failures         = o.failures + 1,
    error            = $5::json,
    doubt_since      = CASE WHEN $6::boolean THEN COALESCE(o.doubt_since, o.started_at) ELSE o.doubt_since END,
    payload          = CASE WHEN $4 <> 'dead' THEN o.payload END,
    lease_expires_at = NULL,
    -- The pause is the ledger's: a queue that was lost and filled again keeps it.
    available_at     = CASE WHEN $4 = 'retrying' THEN clock_timestamp() + $9::bigint * interval '1 millisecond' ELSE o.available_at END,
    dispatch_due_at  = CASE WHEN $4 = 'retrying' THEN o.dispatch_due_at END,
    settled_at       = CASE WHEN $4 = 'dead' THEN clock_timestamp() END
  WHERE o.tenant_id = $1 AND o.operation_key = $2 AND o.fencing_token = $3 AND o.status = 'running'
  -- One time for the attempt's end and the letter, so that the history has them in order.
  RETURNING o.*, clock_timestamp() AS ended_at
), attempted AS (
  INSERT INTO {schema}.job_attempts (
    tenant_id, operation_key, fencing_token, attempt, worker_id, started_at, ended_at, kind, reason, error, delay_ms
  )
  SELECT tenant_id, operation_key, fencing_token, attempts, worker_id, started_at, ended_at, $7, $8, $5::json, $9::bigint
  FROM failed
), buried AS (
  INSERT INTO {schema}.dead_letters (
    tenant_id, operation_key, queue, job_name, job_id, reason, payload, fingerprint, error, attempts, failures,
    fencing_token, doubt_since, worker_id, versions, trace_context, error_fingerprint, created_at
  )
  SELECT
    tenant_id, operation_key, queue, job_name, job_id, $10, $11::json, fingerprint, $5::json, attempts, failures,
    fencing_token, doubt_since, worker_id, $12::json, trace_context, $13, ended_at
  FROM failed WHERE $10::text IS NOT NULL
  ON CONFLICT DO NOTHING
)
SELECT EXISTS (SELECT FROM failed) OR EXISTS (
  SELECT FROM {schema}.job_attempts
  WHERE tenant_id = $1 AND operation_key = $2 AND fencing_token = $3 AND kind <> 'taken_over'
) AS is_recorded
`,
);

/**
 * running → retrying without a trace of the attempt: it was not the operation's fault (shutdown, a handler that handed
 * its job back). Parameters: tenant, key, token, whether the effect may have happened. No row: the lease was lost.
 */
export const RELEASE = statement(
  'release',
  `
UPDATE {schema}.job_outcomes o SET
  status           = 'retrying',
  attempts         = o.attempts - 1,
  lease_expires_at = NULL,
  doubt_since      = CASE WHEN $4::boolean THEN COALESCE(o.doubt_since, o.started_at) ELSE o.doubt_since END
WHERE o.tenant_id = $1 AND o.operation_key = $2 AND o.fencing_token = $3 AND o.status = 'running'
RETURNING true AS is_recorded
`,
);

/**
 * An attempt that nobody answers for and that must not be repeated: running (lease over) or retrying → in_doubt, with
 * its record and its dead letter. The token grows, so that the vanished worker can write nothing any more.
 *
 * Parameters: tenant, key, the token that was seen, error, letter's payload, versions, error fingerprint. No row: somebody else was
 * faster, and the operation is theirs.
 */
export const DOUBT = statement(
  'doubt',
  `
WITH vanished AS (
  SELECT * FROM {schema}.job_outcomes
  WHERE tenant_id = $1 AND operation_key = $2 AND fencing_token = $3
    AND (status = 'retrying' OR (status = 'running' AND lease_expires_at <= clock_timestamp()))
  FOR UPDATE
), doubted AS (
  UPDATE {schema}.job_outcomes o SET
    status           = 'in_doubt',
    fencing_token    = o.fencing_token + 1,
    error            = $4::json,
    doubt_since      = COALESCE(o.doubt_since, o.started_at),
    lease_expires_at = NULL,
    dispatch_due_at  = NULL
  FROM vanished v
  WHERE o.tenant_id = v.tenant_id AND o.operation_key = v.operation_key
  RETURNING o.*, clock_timestamp() AS ended_at
), attempted AS (
  INSERT INTO {schema}.job_attempts (
    tenant_id, operation_key, fencing_token, attempt, worker_id, started_at, ended_at, kind, reason, error
  )
  SELECT v.tenant_id, v.operation_key, v.fencing_token, v.attempts, v.worker_id, v.started_at, d.ended_at,
         'taken_over', 'lease_expired', $4::json
  FROM vanished v CROSS JOIN doubted d WHERE v.status = 'running'
  ON CONFLICT DO NOTHING
)
INSERT INTO {schema}.dead_letters (
  tenant_id, operation_key, queue, job_name, job_id, reason, payload, fingerprint, error, attempts, failures,
  fencing_token, doubt_since, worker_id, versions, trace_context, error_fingerprint, created_at
)
SELECT
  tenant_id, operation_key, queue, job_name, job_id, 'in_doubt', COALESCE($5::json, payload), fingerprint, $4::json,
  attempts, failures, fencing_token, doubt_since, worker_id, $6::json, trace_context, $7, ended_at
FROM doubted
ON CONFLICT DO NOTHING
RETURNING true AS is_recorded
`,
);

/** The record of an attempt whose worker vanished and that was taken over. Parameters as the columns. */
export const TAKE_OVER = statement(
  'take_over',
  `
INSERT INTO {schema}.job_attempts (tenant_id, operation_key, fencing_token, attempt, worker_id, started_at, kind, reason)
VALUES ($1, $2, $3, $4, $5, $6, 'taken_over', 'lease_expired')
ON CONFLICT DO NOTHING
`,
);
