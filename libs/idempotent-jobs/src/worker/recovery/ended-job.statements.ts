import { statement } from '../../ledger/postgres/statement.js';

/** When the job of an operation should have been delivered. As in the index `job_outcomes_carried_by_job`. */
const DUE_AT = `COALESCE(lease_expires_at, reconcile_due_at, available_at, created_at)`;

/**
 * Operations that are due and that only their BullMQ job carries, the longest due first. Parameters: queue, then the last
 * one that was seen: when it was due (in µs since 1970; null: from the start), tenant, key; and how many.
 */
export const CARRIED_BY_JOB = statement(
  'carried_by_job',
  `
SELECT tenant_id, operation_key, job_name, job_id, fencing_token, attempts, status, effect,
  (EXTRACT(EPOCH FROM ${DUE_AT}) * 1000000)::bigint::text AS due_us
FROM {schema}.job_outcomes
WHERE queue = $1 AND payload IS NULL AND origin = 'job'
  AND (status IN ('pending', 'running', 'retrying') OR reconcile_due_at IS NOT NULL)
  AND ${DUE_AT} <= clock_timestamp()
  AND (${DUE_AT}, tenant_id, operation_key) > (COALESCE(timestamptz 'epoch' + $2::float8 * interval '1 microsecond', '-infinity'), $3, $4)
ORDER BY ${DUE_AT}, tenant_id, operation_key
LIMIT $5
`,
);

/**
 * pending or retrying → retrying, doubtful: somebody may have run it without the ledger. Parameters: tenant, key, the token
 * that was seen, and for how long the effect is repeatable in ms (null: forever), where no attempt has said so. No row: it has been claimed since, and is its claimant's.
 */
export const SUSPECT = statement(
  'suspect',
  `
UPDATE {schema}.job_outcomes SET
  status           = 'retrying',
  doubt_since      = COALESCE(doubt_since, started_at, clock_timestamp()),
  doubted_at       = clock_timestamp(),
  repeatable_until = COALESCE(repeatable_until, clock_timestamp() + $4::float8 * interval '1 millisecond', 'infinity'),
  expires_at       = NULL
WHERE tenant_id = $1 AND operation_key = $2 AND fencing_token = $3 AND status IN ('pending', 'retrying')
RETURNING true
`,
);
