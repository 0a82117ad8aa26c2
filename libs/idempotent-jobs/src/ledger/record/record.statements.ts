import { PATIENCE } from '../postgres/quickly.js';
import { inMs, ms, rowsOf, statement } from '../postgres/statement.js';

/** Of a row that becomes completed. An earlier attempt may have left a doubt, which its end now settles. */
export const COMPLETED = `status = 'completed', settled_at = clock_timestamp(), error = NULL, payload = NULL,
    doubt_since = NULL, doubted_at = NULL, reconcile_due_at = NULL, lease_expires_at = NULL, dispatch_due_at = NULL`;

/**
 * The letter of an operation whose row says when its last attempt ended, for a FROM. The reason and the payload are SQL. A call has
 * no queue that a letter could be announced for.
 */
const letterOf = <const Reason extends string, const Payload extends string>(
  reason: Reason,
  payload: Payload,
) =>
  `
  INSERT INTO {schema}.dead_letters (
    tenant_id, operation_key, origin, queue, job_name, job_id, reason, payload, fingerprint, error, attempts, failures,
    fencing_token, doubt_since, run_id, versions, trace_context, error_fingerprint, step_of, step, created_at, dispatch_due_at
  )
  SELECT
    tenant_id, operation_key, origin, queue, job_name, job_id, ${reason}, ${payload}, fingerprint, :error::json,
    attempts, failures, fencing_token, doubt_since, run_id, :versions::json, trace_context, :errorFingerprint, step_of, step,
    ended_at, CASE WHEN origin <> 'call' THEN ended_at END` as const;

/**
 * running → completed, for many operations at once.
 *
 * One row per element comes back: `is_recorded` is false when the lease was lost (another token, or no longer running, or,
 * where that is asked for, a claim that was committed or rolled back since). A second asking after a lost answer finds the
 * row completed under its own token, which is as good as having written it. `is_locked`: some transaction holds the row;
 * nothing was written, and the caller asks again.
 *
 * No row is waited for (SKIP LOCKED): one that somebody holds must not keep others' outcomes from being recorded.
 */
export const COMPLETE = statement(
  'complete',
  `
WITH asked AS (
  SELECT * FROM ${rowsOf('a', 'tenantId text', 'operationKey text', 'token bigint', 'result text', 'retentionMs float8', 'resultOmitted text', 'degraded text')}
), held AS MATERIALIZED (
  SELECT a.*
  FROM asked a CROSS JOIN LATERAL (
    SELECT FROM {schema}.job_outcomes o
    WHERE o.tenant_id = a.tenant_id AND o.operation_key = a.operation_key
      AND o.fencing_token = a.token AND o.status = 'running'
      AND (NOT :isOwn::boolean OR o.xmin = pg_current_xact_id_if_assigned()::xid)
    FOR UPDATE SKIP LOCKED
  ) o
), completed AS (
  UPDATE {schema}.job_outcomes o SET
    ${COMPLETED},
    result           = a.result::json,
    result_omitted   = a.result_omitted,
    degraded         = a.degraded,
    expires_at       = ${inMs('a.retention_ms')}
  FROM held a
  WHERE o.tenant_id = a.tenant_id AND o.operation_key = a.operation_key
    AND o.fencing_token = a.token AND o.status = 'running'
  RETURNING a.n
)
SELECT
  c.n IS NOT NULL OR COALESCE(o.status = 'completed', false) AS is_recorded,
  NOT :isOwn AND COALESCE(o.status = 'running', false) AS is_locked
FROM asked a
LEFT JOIN completed c ON c.n = a.n
-- Only what was not written is looked at.
LEFT JOIN LATERAL (
  SELECT o.status FROM {schema}.job_outcomes o
  WHERE c.n IS NULL AND o.tenant_id = a.tenant_id AND o.operation_key = a.operation_key AND o.fencing_token = a.token
  OFFSET 0
) o ON true
ORDER BY a.n
`,
  'record',
);

/**
 * running, or in_doubt while it is asked about → retrying, in_doubt or dead, with the record of the attempt (or of what
 * was asked) and, when given up, the dead letter; all or nothing.
 *
 * `is_recorded` is false when the lease was lost; a second asking finds the record under its own token.
 *
 * NULL for `:delayMs` means that nothing follows, for `:letter` (its reason) that there is none, for `:forgetAfterMs` that the
 * operation is a job's, and for `:decision` that it was asked about.
 */
export const FAIL = statement(
  'fail',
  `
WITH ${PATIENCE}, failed AS (
  UPDATE {schema}.job_outcomes o SET
    status           = :status,
    failures         = o.failures + CASE WHEN o.status = 'running' THEN 1 ELSE 0 END,
    error            = :error::json,
    doubt_since      = CASE WHEN :isDoubtful::boolean THEN COALESCE(o.doubt_since, o.started_at) ELSE o.doubt_since END,
    doubted_at       = CASE WHEN NOT :isDoubtful THEN o.doubted_at
                            WHEN o.status = 'running' THEN clock_timestamp()
                            ELSE COALESCE(o.doubted_at, clock_timestamp()) END,
    reconcile_due_at = CASE WHEN :status = 'in_doubt' THEN ${inMs(':delayMs::bigint')} END,
    payload          = CASE WHEN :status <> 'dead' THEN o.payload END,
    lease_expires_at = NULL,
    -- The pause is the ledger's: a queue that was lost and filled again keeps it.
    delay_ms         = CASE WHEN :status = 'retrying' THEN :delayMs::float8 END,
    available_at     = CASE WHEN :status = 'retrying' THEN ${inMs(':delayMs::bigint')} ELSE o.available_at END,
    dispatch_due_at  = CASE WHEN :status = 'retrying' OR (:status = 'in_doubt' AND :delayMs IS NOT NULL) THEN o.dispatch_due_at END,
    settled_at       = CASE WHEN :status = 'dead' THEN clock_timestamp() END,
    -- A doubt is never forgotten.
    expires_at       = CASE WHEN :status = 'retrying' AND NOT :isDoubtful AND o.doubt_since IS NULL
                            THEN ${inMs(':forgetAfterMs::float8')} END
  FROM patience
  WHERE o.tenant_id = :tenantId AND o.operation_key = :operationKey AND o.fencing_token = :token AND o.lease_expires_at IS NOT NULL
  -- One time for the attempt's end and the letter, so that the history has them in order.
  RETURNING o.*, clock_timestamp() AS ended_at
), attempted AS (
  INSERT INTO {schema}.job_attempts (
    tenant_id, operation_key, fencing_token, attempt, run_id, started_at, ended_at, kind, reason, error, delay_ms, decision
  )
  SELECT
    tenant_id, operation_key, fencing_token, attempts, run_id, started_at, ended_at, :kind, :reason, :error::json, :delayMs::bigint, :decision
  FROM failed
), letter AS (
  ${letterOf(':letter', ':payload::json')}
  FROM failed WHERE :letter::text IS NOT NULL
  ON CONFLICT DO NOTHING
)
SELECT EXISTS (SELECT FROM failed) OR EXISTS (
  SELECT FROM {schema}.job_attempts
  WHERE tenant_id = :tenantId AND operation_key = :operationKey AND fencing_token = :token AND kind = :kind
) AS is_recorded
`,
  'record',
);

/**
 * running → retrying without a trace of the attempt: it was not the operation's fault (shutdown, a handler that handed its
 * job back, a step that it has to wait for). No row: the lease was lost.
 */
export const RELEASE = statement(
  'release',
  `
WITH ${PATIENCE}
UPDATE {schema}.job_outcomes o SET
  status           = 'retrying',
  attempts         = o.attempts - 1,
  lease_expires_at = NULL,
  available_at     = COALESCE(${inMs(':waitMs::float8')}, o.available_at),
  doubt_since      = CASE WHEN :isDoubtful::boolean THEN COALESCE(o.doubt_since, o.started_at) ELSE o.doubt_since END,
  doubted_at       = CASE WHEN :isDoubtful THEN clock_timestamp() ELSE o.doubted_at END,
  -- A doubt is never forgotten.
  expires_at       = CASE WHEN NOT :isDoubtful AND o.doubt_since IS NULL THEN ${inMs(':forgetAfterMs::float8')} END
FROM patience
WHERE o.tenant_id = :tenantId AND o.operation_key = :operationKey AND o.fencing_token = :token AND o.status = 'running'
RETURNING true AS is_recorded
`,
  'record',
);

/**
 * in_doubt → running: the effect of the last attempt did not happen, and the next one begins, under the token it was asked
 * with. No row: the lease was lost. A second asking finds the attempt begun.
 */
export const START = statement(
  'start',
  `
WITH ${PATIENCE}, asked AS (
  SELECT o.* FROM patience CROSS JOIN {schema}.job_outcomes o
  WHERE tenant_id = :tenantId AND operation_key = :operationKey AND fencing_token = :token AND lease_expires_at IS NOT NULL
  FOR UPDATE OF o
), answered AS (
  INSERT INTO {schema}.job_attempts (tenant_id, operation_key, fencing_token, attempt, run_id, started_at, kind, reason)
  SELECT tenant_id, operation_key, fencing_token, attempts, run_id, started_at, 'reconciled', 'not_applied'
  FROM asked WHERE status = 'in_doubt'
)
UPDATE {schema}.job_outcomes o SET
  status           = 'running',
  attempts         = o.attempts + CASE WHEN asked.status = 'in_doubt' THEN 1 ELSE 0 END,
  started_at       = clock_timestamp(),
  doubt_since      = NULL,
  doubted_at       = NULL,
  reconcile_due_at = NULL,
  repeatable_until = COALESCE(${inMs(':repeatableMs::float8')}, 'infinity'),
  deadline_at      = COALESCE(o.deadline_at, ${inMs(':budgetMs::float8')})
FROM asked
WHERE o.tenant_id = asked.tenant_id AND o.operation_key = asked.operation_key
RETURNING
  o.attempts, o.failures, o.deadline_at, o.started_at,
  ${ms('o.deadline_at - clock_timestamp()')} AS remaining_ms,
  (EXTRACT(EPOCH FROM o.repeatable_until)::float8 - EXTRACT(EPOCH FROM clock_timestamp())::float8) * 1000 AS repeatable_ms
`,
  'record',
);

/**
 * in_doubt, asked about → completed: the effect of the last attempt happened, with its result as JSON text. One row:
 * `is_recorded` is false when the lease was lost; a second asking finds it completed.
 */
export const APPLY_RECONCILED = statement(
  'apply_asked',
  `
WITH ${PATIENCE}, applied AS (
  UPDATE {schema}.job_outcomes o SET
    ${COMPLETED},
    result           = :result::json,
    result_omitted   = :resultOmitted,
    expires_at       = ${inMs(':retentionMs::float8')}
  FROM patience
  WHERE o.tenant_id = :tenantId AND o.operation_key = :operationKey AND o.fencing_token = :token AND o.status = 'in_doubt'
    AND o.lease_expires_at IS NOT NULL
  RETURNING o.*
), answered AS (
  INSERT INTO {schema}.job_attempts (
    tenant_id, operation_key, fencing_token, attempt, run_id, started_at, ended_at, kind, reason
  )
  SELECT tenant_id, operation_key, fencing_token, attempts, run_id, started_at, settled_at, 'reconciled', 'applied' FROM applied
)
SELECT EXISTS (SELECT FROM applied) OR EXISTS (
  SELECT FROM {schema}.job_outcomes
  WHERE tenant_id = :tenantId AND operation_key = :operationKey AND fencing_token = :token AND status = 'completed'
) AS is_recorded
`,
  'record',
);

/**
 * An attempt that nobody answers for and that must not be repeated, and an operation that nobody here can ask about:
 * running (lease over), pending, retrying, or in_doubt (until now asked about) → in_doubt, with its record and its dead
 * letter. The token grows, so that the vanished worker can write nothing any more.
 *
 * No row: somebody else was faster, and the operation is theirs.
 */
export const DOUBT = statement(
  'doubt',
  `
WITH ${PATIENCE}, vanished AS (
  SELECT o.* FROM patience CROSS JOIN {schema}.job_outcomes o
  WHERE tenant_id = :tenantId AND operation_key = :operationKey AND fencing_token = :seenToken
    AND (status IN ('pending', 'retrying') OR COALESCE(lease_expires_at <= clock_timestamp(), reconcile_due_at IS NOT NULL))
  FOR UPDATE OF o
), doubted AS (
  UPDATE {schema}.job_outcomes o SET
    status           = 'in_doubt',
    fencing_token    = o.fencing_token + 1,
    error            = :error::json,
    doubt_since      = COALESCE(o.doubt_since, o.started_at, clock_timestamp()),
    doubted_at       = COALESCE(o.doubted_at, clock_timestamp()),
    reconcile_due_at = NULL,
    lease_expires_at = NULL,
    expires_at       = NULL,
    dispatch_due_at  = NULL
  FROM vanished v
  WHERE o.tenant_id = v.tenant_id AND o.operation_key = v.operation_key
  RETURNING o.*, clock_timestamp() AS ended_at
), attempted AS (
  INSERT INTO {schema}.job_attempts (
    tenant_id, operation_key, fencing_token, attempt, run_id, started_at, ended_at, kind, reason, error
  )
  SELECT v.tenant_id, v.operation_key, v.fencing_token, v.attempts, v.run_id, v.started_at, d.ended_at,
         'taken_over', 'lease_expired', :error::json
  FROM vanished v CROSS JOIN doubted d WHERE v.status = 'running'
  ON CONFLICT DO NOTHING
)
${letterOf("'in_doubt'", 'COALESCE(:payload::json, payload)')}
FROM doubted
ON CONFLICT DO NOTHING
RETURNING true AS is_recorded
`,
  'record',
);

/** The record of an attempt whose worker vanished and that was taken over. Parameters as the columns. */
export const TAKE_OVER = statement(
  'take_over',
  `
INSERT INTO {schema}.job_attempts (tenant_id, operation_key, fencing_token, attempt, run_id, started_at, kind, reason)
VALUES (:tenantId, :operationKey, :token, :attempt, :runId, :startedAt, 'taken_over', 'lease_expired')
ON CONFLICT DO NOTHING
`,
  'record',
);

/**
 * An attempt that was taken over has not vanished with its process: that was slow, or out of reach, and has given it up
 * itself. Counted once as an attempt that failed, so that only those that killed their process look like it.
 */
export const SURRENDER = statement(
  'surrender',
  `
WITH ${PATIENCE}, surrendered AS (
  INSERT INTO {schema}.job_attempts (tenant_id, operation_key, fencing_token, attempt, started_at, kind, reason)
  SELECT :tenantId, :operationKey, :token::bigint, :attempt::integer, :startedAt::timestamptz, 'surrendered', 'lease_lost' FROM patience
  WHERE EXISTS (SELECT FROM {schema}.job_outcomes WHERE tenant_id = :tenantId AND operation_key = :operationKey)
  ON CONFLICT DO NOTHING
  RETURNING true
)
UPDATE {schema}.job_outcomes o SET failures = o.failures + 1
FROM surrendered
WHERE o.tenant_id = :tenantId AND o.operation_key = :operationKey AND o.fencing_token > :token AND o.failures < o.attempts
  AND o.attempts > :attempt AND o.status IN ('running', 'retrying', 'in_doubt')
`,
  'record',
);

/**
 * Whether an attempt that may write nothing any more has been replaced by another one (:runId). Told from
 * elsewhere how its operation ended, it has not been: the row is settled and still names its worker. *No row*: the
 * operation was erased.
 */
export const WAS_REPLACED = statement(
  'was_replaced',
  `
SELECT run_id IS DISTINCT FROM :runId OR status NOT IN ('completed', 'dead') AS was_replaced
FROM {schema}.job_outcomes WHERE tenant_id = :tenantId AND operation_key = :operationKey
`,
  'record',
);
