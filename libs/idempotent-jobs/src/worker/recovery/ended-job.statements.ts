import { inMs, statement } from '../../ledger/postgres/statement.js';

/** When the job of an operation should have been delivered. Must match the index `job_outcomes_carried_by_job`. */
const DUE_AT = `COALESCE(lease_expires_at, reconcile_due_at, available_at, created_at)`;

/** Operations that are due and that only their BullMQ job carries, the longest due first. */
export const CARRIED_BY_JOB = statement(
  'carried_by_job',
  `
SELECT tenant_id, operation_key, job_name, job_id, fencing_token, attempts, status, effect,
  (EXTRACT(EPOCH FROM ${DUE_AT}) * 1000000)::bigint::text AS due_us
FROM {schema}.job_outcomes
WHERE queue = :queue AND payload IS NULL AND origin = 'job'
  AND (status IN ('pending', 'running', 'retrying') OR reconcile_due_at IS NOT NULL)
  AND ${DUE_AT} <= clock_timestamp()
  AND (${DUE_AT}, tenant_id, operation_key) > (COALESCE(timestamptz 'epoch' + :seenDueUs::float8 * interval '1 microsecond', '-infinity'), :seenTenantId, :seenKey)
ORDER BY ${DUE_AT}, tenant_id, operation_key
LIMIT :limit
`,
);

/**
 * pending or retrying → retrying, doubtful: a worker may have run it without the ledger. No row means that it was
 * claimed since, and its claimant decides.
 */
export const SUSPECT = statement(
  'suspect',
  `
UPDATE {schema}.job_outcomes SET
  status           = 'retrying',
  doubt_since      = COALESCE(doubt_since, started_at, clock_timestamp()),
  doubted_at       = clock_timestamp(),
  repeatable_until = COALESCE(repeatable_until, ${inMs(':repeatableMs::float8')}, 'infinity'),
  expires_at       = NULL
WHERE tenant_id = :tenantId AND operation_key = :operationKey AND fencing_token = :token AND status IN ('pending', 'retrying')
RETURNING true
`,
);
