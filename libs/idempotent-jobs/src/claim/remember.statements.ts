import { statement } from '../postgres/statement.js';

/**
 * Whether an operation has a row, which is then kept from being pruned until the transaction ends. Parameters: tenant,
 * key. `is_there` without `is_kept`: somebody has locked it, and is not waited for.
 */
export const REMEMBER = statement(
  'remember',
  `
WITH kept AS (
  SELECT true FROM {schema}.job_outcomes WHERE tenant_id = $1 AND operation_key = $2 FOR KEY SHARE SKIP LOCKED
)
SELECT
  EXISTS (SELECT FROM kept) AS is_kept,
  EXISTS (SELECT FROM {schema}.job_outcomes WHERE tenant_id = $1 AND operation_key = $2) AS is_there
`,
  'claim',
);

/**
 * Whether a job without a row is younger than all that was forgotten of its queue, so that its operation cannot have been
 * among it. Asked after {@link REMEMBER} has found nothing: a row that was pruned before that has raised the mark in the
 * statement that deleted it. Parameters: queue, when the job could first run (ms since 1970).
 */
export const IS_YOUNG = statement(
  'is_young',
  `
SELECT COALESCE(
  timestamptz 'epoch' + $2::float8 * interval '1 millisecond'
    > (SELECT forgotten_until FROM {schema}.job_queues WHERE queue = $1),
  true) AS is_young
`,
  'claim',
);
