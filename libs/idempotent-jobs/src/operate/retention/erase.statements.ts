import { statement } from '../../ledger/postgres/statement.js';
import { INTO_AUDIT } from '../../ledger/record/audit.js';

/** Counts what there is of a tenant. */
export const COUNT_TENANT = statement(
  'count_tenant',
  `
SELECT
  (SELECT count(*)::integer FROM {schema}.job_outcomes WHERE tenant_id = :tenantId) AS operations,
  (SELECT count(*)::integer FROM {schema}.job_outcomes
   WHERE tenant_id = :tenantId AND lease_expires_at > clock_timestamp()) AS running,
  (SELECT count(*)::integer FROM {schema}.dead_letters WHERE tenant_id = :tenantId) AS letters,
  (SELECT count(*)::integer FROM {schema}.job_attempts WHERE tenant_id = :tenantId) AS attempts
`,
);

/**
 * Gives up a tenant's open operations, in batches: a worker that takes one of their jobs from now on finds a dead
 * operation and runs nothing. Running operations are left to end.
 */
export const GIVE_UP_TENANT = statement(
  'give_up_tenant',
  `
WITH open AS (
  SELECT tenant_id, operation_key FROM {schema}.job_outcomes
  WHERE tenant_id = :tenantId AND (
    status IN ('pending', 'retrying') OR (status IN ('running', 'in_doubt') AND COALESCE(lease_expires_at <= clock_timestamp(), true)))
  ORDER BY operation_key LIMIT :limit
  FOR UPDATE
), given_up AS (
  UPDATE {schema}.job_outcomes o SET
    status = 'dead', fencing_token = o.fencing_token + 1, payload = NULL, lease_expires_at = NULL, dispatch_due_at = NULL,
    reconcile_due_at = NULL, settled_at = clock_timestamp()
  FROM open WHERE o.tenant_id = open.tenant_id AND o.operation_key = open.operation_key
  RETURNING 1
)
SELECT count(*)::integer AS rows FROM given_up
`,
);

/** Deletes a tenant's settled operations with their attempts, in batches. */
export const ERASE_OPERATIONS = statement(
  'erase_operations',
  `
WITH settled AS (
  SELECT tenant_id, operation_key FROM {schema}.job_outcomes
  WHERE tenant_id = :tenantId AND status IN ('completed', 'dead')
  LIMIT :limit
  FOR UPDATE
), attempts AS (
  DELETE FROM {schema}.job_attempts a USING settled s
  WHERE a.tenant_id = s.tenant_id AND a.operation_key = s.operation_key
  RETURNING 1
), erased AS (
  DELETE FROM {schema}.job_outcomes o USING settled s
  WHERE o.tenant_id = s.tenant_id AND o.operation_key = s.operation_key
  RETURNING 1
)
SELECT (SELECT count(*) FROM erased)::integer AS rows, (SELECT count(*) FROM attempts)::integer AS attempts
`,
);

/** Deletes a tenant's letters, in batches. */
export const ERASE_LETTERS = statement(
  'erase_letters',
  `
WITH erased AS (
  DELETE FROM {schema}.dead_letters
  WHERE id IN (SELECT id FROM {schema}.dead_letters WHERE tenant_id = :tenantId LIMIT :limit)
  RETURNING 1
)
SELECT count(*)::integer AS rows FROM erased
`,
);

/** Removes the tenant from the audit, which keeps who acted and when, and records the erasure itself. */
export const ERASE_TRACES = statement(
  'erase_traces',
  `
WITH redrives AS (
  UPDATE {schema}.dead_letter_redrives SET filter = '{}', note = '(erased)', ended_because = NULL
  WHERE filter->>'tenantId' = :tenantId
  RETURNING id
), actions AS (
  UPDATE {schema}.job_actions
  SET tenant_id = NULL, operation_key = NULL, letter_id = NULL, note = '(erased)', details = NULL
  WHERE action <> 'erase' AND (
    tenant_id = :tenantId OR details->>'tenantId' = :tenantId OR redrive_id IN (SELECT id FROM redrives))
)
${INTO_AUDIT}
VALUES ('erase', :actor, :note, NULL, NULL, NULL, :tenantId, NULL, :erased::json)
`,
);
