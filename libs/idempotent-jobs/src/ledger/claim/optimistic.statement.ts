import { inMs, locked, ms, lookedUpByKey, rowsOf, statement } from '../postgres/statement.js';
import { isYoung } from './claim.statement.js';
import { COMPLETED } from './complete.statement.js';

/**
 * Whether nothing is known of operation `o` but what was asked for. An operation that was put on its queue more than once is not
 * untouched: an attempt that left no record may be the reason.
 */
const IS_UNTOUCHED =
  `o.status = 'pending' AND o.attempts = 0 AND o.fencing_token = 0 AND o.redrives = 0 AND o.dispatches <= 1
      AND COALESCE(o.available_at <= clock_timestamp(), true) AND o.last_trace IS NULL AND o.fingerprint = a.fingerprint
      AND o.queue = :queue AND o.deadline_at IS NOT DISTINCT FROM a.deadline_at` as const;

/**
 * Looks at operations whose first attempts are to be made without a claim. Each row of the answer has the database's time, in
 * ms since 1970. Its other columns are about an operation, of number `n`, that has ended or that needs a claim.
 */
export const LOOK = statement(
  'look',
  `
WITH moment AS MATERIALIZED (
  SELECT clock_timestamp() AS now, (SELECT forgotten_until FROM {schema}.job_queues WHERE queue = :queue) AS forgotten_until
), answered AS (
  SELECT a.n::integer, seen.status, seen.is_same_request, seen.result, seen.degraded, seen.last_trace
  FROM moment p
  CROSS JOIN ${rowsOf('a', 'tenantId text', 'operationKey text', 'fingerprint text', 'deadlineAt timestamptz', 'availableMs float8', 'needsRow boolean')}
  LEFT JOIN LATERAL (
    SELECT o.status, o.fingerprint = a.fingerprint AND o.queue = :queue AS is_same_request, o.result::text AS result, o.degraded,
      o.last_trace, ${IS_UNTOUCHED} AS is_untouched
    FROM {schema}.job_outcomes o
    WHERE o.tenant_id = a.tenant_id AND o.operation_key = a.operation_key
    LIMIT 1
  ) seen ON true
  WHERE NOT COALESCE(seen.is_untouched, NOT a.needs_row)
    OR a.deadline_at <= p.now
    -- Its row may have been forgotten.
    OR p.forgotten_until IS NOT NULL AND NOT ${isYoung('a.available_ms', 'p.forgotten_until')}
)
SELECT ${ms('p.now')} AS now_ms, r.* FROM moment p LEFT JOIN answered r ON true
`,
  'claim',
);

/**
 * Records the first outcomes of operations that were run without a claim: (none), pending or retrying → completed. What has
 * ended stays as it is, and so does what runs under a lease.
 *
 * A row for each outcome that was not written, with its number. `is_recorded` is false when another outcome was first, or the
 * operation is claimed, in doubt, given up, or no longer there although it had a row. A repeat after a lost answer finds the
 * row of its own run. `is_locked` means that another transaction holds the row, or has just made it: nothing was written, and
 * the caller asks again.
 *
 * No two elements may name the same operation. No row is waited for (SKIP LOCKED); only one that is being inserted is, for
 * 200 ms, in key order.
 */
export const RECORD_FIRST = statement(
  'record_first',
  `
WITH patience AS MATERIALIZED (
  SELECT set_config('lock_timeout', '200ms', true) AS lock_timeout, (EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::bigint AS token
), ended AS (
  SELECT a.*, p.token FROM patience p CROSS JOIN ${rowsOf('a', 'tenantId text', 'operationKey text', 'jobName text', 'jobId text', 'fingerprint text', 'runId text', 'startedAt timestamptz', 'deadlineAt timestamptz', 'trace text', 'needsRow boolean', 'result text', 'retentionMs float8', 'resultOmitted text', 'degraded text')}
), held AS MATERIALIZED (
  ${locked('ended a', `o.status IN ('pending', 'retrying') AND o.fingerprint = a.fingerprint AND o.queue = :queue`)}
), taken AS (
  UPDATE {schema}.job_outcomes o SET
    ${COMPLETED},
    effect           = :effect,
    fencing_token    = GREATEST(o.fencing_token + 1, a.token),
    attempts         = o.attempts + 1,
    run_id           = a.run_id,
    last_trace       = COALESCE(a.trace, o.last_trace),
    started_at       = a.started_at,
    result           = a.result::json,
    result_omitted   = a.result_omitted,
    degraded         = a.degraded,
    expires_at       = ${inMs('a.retention_ms')}
  FROM held a
  WHERE o.tenant_id = a.tenant_id AND o.operation_key = a.operation_key AND ${lookedUpByKey('a.operation_key')}
  RETURNING a.n
), made AS (
  INSERT INTO {schema}.job_outcomes AS o (
    tenant_id, operation_key, origin, queue, job_name, job_id, fingerprint, status, effect, fencing_token, run_id, attempts,
    started_at, deadline_at, has_own_deadline, last_trace, result, result_omitted, degraded, settled_at, expires_at
  )
  SELECT
    a.tenant_id, a.operation_key, :origin, :queue, a.job_name, a.job_id, a.fingerprint, 'completed', :effect, a.token, a.run_id, 1,
    a.started_at, a.deadline_at, a.deadline_at IS NOT NULL, a.trace, a.result::json, a.result_omitted, a.degraded, clock_timestamp(),
    ${inMs('a.retention_ms')}
  FROM ended a
  WHERE NOT a.needs_row AND NOT EXISTS (
    SELECT FROM {schema}.job_outcomes o WHERE o.tenant_id = a.tenant_id AND o.operation_key = a.operation_key
    OFFSET 0) -- looks it up by its key
  ORDER BY a.tenant_id, a.operation_key
  ON CONFLICT (tenant_id, operation_key) DO NOTHING
  RETURNING o.tenant_id, o.operation_key
)
SELECT
  a.n::integer,
  COALESCE(o.status = 'completed' AND o.run_id = a.run_id, false) AS is_recorded,
  COALESCE(o.is_open, NOT a.needs_row) AS is_locked
FROM ended a
LEFT JOIN LATERAL (
  SELECT o.status, o.run_id, o.status IN ('pending', 'retrying') AND o.fingerprint = a.fingerprint AND o.queue = :queue AS is_open
  FROM {schema}.job_outcomes o
  WHERE o.tenant_id = a.tenant_id AND o.operation_key = a.operation_key
  LIMIT 1
) o ON true
WHERE a.n NOT IN (SELECT n FROM taken) AND (a.tenant_id, a.operation_key) NOT IN (SELECT tenant_id, operation_key FROM made)
`,
  'record',
);
