import { COMPLETED } from '../claim/complete.statement.js';
import { PATIENCE, inMs, ms, lookedUpByKey, statement } from '../postgres/statement.js';

/**
 * INSERT … SELECT of an operation's dead letter; the caller appends the FROM, whose row says when the last attempt ended.
 * The reason and the payload are SQL. A call has no dead-letter queue, so its letter is never due for one.
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
 * running (or in_doubt, while the service is asked) → retrying, in_doubt or dead. Writes the record of the attempt (or of
 * the question) and, when the operation is given up, the dead letter; all or nothing.
 *
 * `is_recorded` is false when the lease was lost. A repeat finds the record under its own token.
 *
 * NULL for `:delayMs` means that nothing follows; for `:letter` (its reason), that no letter is written; for
 * `:forgetAfterMs`, that the operation belongs to a job; for `:decision`, that the service was asked.
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
 * running → retrying, without a record of the attempt, which was not the operation's fault (shutdown, a handler that
 * handed its job back, a step that it has to wait for). No row means that the lease was lost.
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
 * in_doubt → running: the effect of the last attempt did not happen, and the next attempt begins under the token of the
 * question. No row means that the lease was lost. A repeat finds the attempt begun.
 */
export const START = statement(
  'start',
  `
WITH ${PATIENCE}, operation AS (
  SELECT o.* FROM patience CROSS JOIN {schema}.job_outcomes o
  WHERE tenant_id = :tenantId AND operation_key = :operationKey AND fencing_token = :token AND lease_expires_at IS NOT NULL
  FOR UPDATE OF o
), answered AS (
  INSERT INTO {schema}.job_attempts (tenant_id, operation_key, fencing_token, attempt, run_id, started_at, kind, reason)
  SELECT tenant_id, operation_key, fencing_token, attempts, run_id, started_at, 'reconciled', 'not_applied'
  FROM operation WHERE status = 'in_doubt'
)
UPDATE {schema}.job_outcomes o SET
  status           = 'running',
  attempts         = o.attempts + CASE WHEN operation.status = 'in_doubt' THEN 1 ELSE 0 END,
  started_at       = clock_timestamp(),
  doubt_since      = NULL,
  doubted_at       = NULL,
  reconcile_due_at = NULL,
  repeatable_until = COALESCE(${inMs(':repeatableMs::float8')}, 'infinity'),
  deadline_at      = COALESCE(o.deadline_at, ${inMs(':budgetMs::float8')})
FROM operation
WHERE o.tenant_id = operation.tenant_id AND o.operation_key = operation.operation_key AND ${lookedUpByKey('operation.operation_key')}
RETURNING
  o.attempts, o.failures, o.deadline_at, o.started_at,
  ${ms('o.deadline_at - clock_timestamp()')} AS remaining_ms,
  (EXTRACT(EPOCH FROM o.repeatable_until)::float8 - EXTRACT(EPOCH FROM clock_timestamp())::float8) * 1000 AS repeatable_ms
`,
  'record',
);

/**
 * in_doubt, while the service is asked → completed: the effect of the last attempt happened, and its result is JSON text.
 * One row: `is_recorded` is false when the lease was lost. A repeat finds the operation completed.
 */
export const APPLY_RECONCILED = statement(
  'apply_reconciled',
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
 * running (lease over), pending, retrying, or in_doubt (so far asked about) → in_doubt, with the record of the attempt and
 * the dead letter. For an attempt whose worker vanished and that must not be repeated, and for an operation whose service
 * this process cannot ask. The fencing token grows, so that the vanished worker can write nothing any more.
 *
 * No row means that another worker was faster and has the operation.
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
  WHERE o.tenant_id = v.tenant_id AND o.operation_key = v.operation_key AND ${lookedUpByKey('v.operation_key')}
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

/**
 * Records an attempt whose worker vanished and that was taken over. `:token` and `:attempt` are those of the vanished
 * attempt.
 */
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
 * Records that an attempt that was taken over did not die with its process: the process was slow or cut off, and has given
 * the attempt up itself. The attempt is counted once as failed, so that only attempts that killed their process count as
 * vanished.
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
 * Whether an attempt that may write nothing any more was replaced by another run than `:runId`. It was not replaced when
 * its operation was settled from elsewhere (by a person or a webhook): that row still names this run. No row means that
 * the operation was erased.
 */
export const WAS_REPLACED = statement(
  'was_replaced',
  `
SELECT run_id IS DISTINCT FROM :runId OR status NOT IN ('completed', 'dead') AS was_replaced
FROM {schema}.job_outcomes WHERE tenant_id = :tenantId AND operation_key = :operationKey
LIMIT 1
`,
  'record',
);
