import { inMs, locked, ms, rowsOf, statement } from '../postgres/statement.js';
import { isYoung } from './claim.statement.js';
import { COMPLETED } from './complete.statement.js';

/** The time at which a job could first run. */
const JOB_AVAILABLE = `timestamptz 'epoch' + a.available_ms * interval '1 millisecond'` as const;

/** Whether an attempt that began as early as `since` may be too old to be repeated. */
const isLate = <const Since extends string>(since: Since) =>
  `COALESCE(${since} + :repeatableMs::float8 * interval '1 millisecond' <= p.now, false)` as const;

/**
 * Whether nothing is known of operation `o` but what was asked for. Of an operation that was delayed, woken or redriven it is
 * not known since when it could be run.
 */
const IS_UNRECORDED =
  `o.status = 'pending' AND o.attempts = 0 AND o.redrives = 0 AND o.available_at IS NULL AND o.doubt_since IS NULL
      AND o.last_trace IS NULL AND o.fingerprint = a.fingerprint AND o.queue = :queue AND o.deadline_at IS NOT DISTINCT FROM a.deadline_at` as const;

/**
 * Looks at operations whose first attempts are to be made without a claim. Each row of the answer has the database's time, in
 * ms since 1970. Its other columns are about an operation, of number `n`, that has ended or that needs a claim: also one that was
 * put on its queue more than once, because an attempt without a record may be the reason. `is_late` says
 * that an unrecorded attempt, if there was one, may be too old to be repeated.
 *
 * NULL for `:repeatableMs` means forever.
 */
export const LOOK = statement(
  'look',
  `
WITH patience AS MATERIALIZED (
  SELECT clock_timestamp() AS now, (SELECT forgotten_until FROM {schema}.job_queues WHERE queue = :queue) AS forgotten_until
), answered AS (
  SELECT a.n::integer, NULL AS token, l.is_old, COALESCE(seen.is_late, ${isLate(JOB_AVAILABLE)}) AS is_late, seen.is_unrecorded, a.needs_row,
    seen.dispatches, seen.status, seen.is_same_request, seen.result, seen.degraded, seen.last_trace,
    COALESCE(a.deadline_at > p.now, true) AS is_in_time
  FROM patience p
  CROSS JOIN ${rowsOf('a', 'tenantId text', 'operationKey text', 'fingerprint text', 'deadlineAt timestamptz', 'availableMs float8', 'needsRow boolean')}
  CROSS JOIN LATERAL (
    SELECT p.forgotten_until IS NOT NULL AND NOT ${isYoung('a.available_ms', 'p.forgotten_until')} AS is_old
  ) l
  LEFT JOIN LATERAL (
    SELECT o.status, o.fingerprint = a.fingerprint AND o.queue = :queue AS is_same_request, o.result::text AS result, o.degraded,
      o.last_trace, o.dispatches, ${isLate('o.created_at')} AS is_late, ${IS_UNRECORDED} AS is_unrecorded
    FROM {schema}.job_outcomes o
    WHERE o.tenant_id = a.tenant_id AND o.operation_key = a.operation_key
    OFFSET 0
  ) seen ON true
)
SELECT ${ms('p.now')} AS now_ms, r.*
FROM patience p
LEFT JOIN answered r ON r.is_late OR r.is_old OR NOT r.is_in_time OR NOT COALESCE(r.is_unrecorded AND r.dispatches <= 1, NOT r.needs_row)
`,
  'claim',
);

/**
 * Records the first outcomes of operations that were run without a claim: (none), pending, retrying, or running under somebody
 * else's lease → completed. What had ended before stays as it is.
 *
 * A row for each outcome that was not written, with its number. `is_recorded` is false when another outcome was first, or the
 * operation is in doubt, given up, or no longer there although it had a row. A repeat after a lost answer finds the row of its own run. `is_locked`
 * means that another transaction holds the row, or has just made it: nothing was written, and the caller asks again.
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
  ${locked('ended a', `o.status IN ('pending', 'retrying', 'running') AND o.fingerprint = a.fingerprint AND o.queue = :queue`)}
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
  WHERE o.tenant_id = a.tenant_id AND o.operation_key = a.operation_key
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
    SELECT FROM {schema}.job_outcomes o WHERE o.tenant_id = a.tenant_id AND o.operation_key = a.operation_key)
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
  SELECT o.status, o.run_id, o.status IN ('pending', 'retrying', 'running') AND o.fingerprint = a.fingerprint AND o.queue = :queue AS is_open
  FROM {schema}.job_outcomes o
  WHERE o.tenant_id = a.tenant_id AND o.operation_key = a.operation_key
  OFFSET 0
) o ON true
WHERE a.n NOT IN (SELECT n FROM taken) AND (a.tenant_id, a.operation_key) NOT IN (SELECT tenant_id, operation_key FROM made)
`,
  'record',
);

/**
 * (none), or pending and unrecorded → running, under a lease that is over: an attempt without a claim may have vanished, and may be too old
 * to be repeated. The next claim decides what becomes of it.
 */
export const NOTE_VANISHED = statement(
  'note_vanished',
  `
WITH delivery AS (
  SELECT :tenantId::text AS tenant_id, :operationKey::text AS operation_key, :fingerprint::text AS fingerprint, :deadline::timestamptz AS deadline_at,
    :availableMs::float8 AS available_ms, clock_timestamp() AS now
), noted AS (
  UPDATE {schema}.job_outcomes o SET
    status           = 'running',
    effect           = :effect,
    fencing_token    = GREATEST(o.fencing_token + 1, (EXTRACT(EPOCH FROM a.now) * 1000)::bigint),
    run_id           = 'an attempt without a claim',
    lease_expires_at = a.now,
    attempts         = 1,
    started_at       = o.created_at,
    repeatable_until = COALESCE(o.created_at + :repeatableMs::float8 * interval '1 millisecond', 'infinity')
  FROM delivery a
  WHERE o.tenant_id = a.tenant_id AND o.operation_key = a.operation_key AND ${IS_UNRECORDED}
  RETURNING true
)
INSERT INTO {schema}.job_outcomes (
  tenant_id, operation_key, origin, queue, job_name, job_id, fingerprint, status, effect, fencing_token, run_id,
  lease_expires_at, attempts, started_at, repeatable_until, deadline_at, has_own_deadline
)
SELECT
  a.tenant_id, a.operation_key, :origin, :queue, :jobName, :jobId, a.fingerprint, 'running', :effect, (EXTRACT(EPOCH FROM a.now) * 1000)::bigint,
  'an attempt without a claim', a.now, 1, ${JOB_AVAILABLE}, COALESCE(${JOB_AVAILABLE} + :repeatableMs::float8 * interval '1 millisecond', 'infinity'),
  a.deadline_at, a.deadline_at IS NOT NULL
FROM delivery a
WHERE NOT :needsRow::boolean AND NOT EXISTS (SELECT FROM noted)
ON CONFLICT (tenant_id, operation_key) DO NOTHING
`,
  'claim',
);
