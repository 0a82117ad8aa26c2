import { statement } from '../postgres/statement.js';

/**
 * Whether a job that could first run at `availableMs` (ms since 1970) is younger than what was forgotten until then. A job
 * that is here and could not run yet for more than an hour, which is as far as clocks may be off, has made up its time.
 */
export function isYoung(availableMs: string, forgottenUntil: string): string {
  const availableAt = `(timestamptz 'epoch' + ${availableMs} * interval '1 millisecond')`;
  return `(${availableAt} > ${forgottenUntil} AND ${availableAt} <= clock_timestamp() + interval '1 hour')`;
}

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
  (SELECT forgotten_until IS NULL OR ${isYoung('$2::float8', 'forgotten_until')} FROM {schema}.job_queues WHERE queue = $1),
  true) AS is_young
`,
  'claim',
);

/**
 * Writes down an attempt of a worker without the library, of which nobody has kept a record: as one that was claimed and
 * has vanished, so that the next claim decides by the effect. Parameters: tenant, key, queue, job name, job id, fingerprint,
 * effect, how long the effect is repeatable in ms (null: forever), time budget in ms (null: none), deadline given at
 * enqueue (null: none). No row comes back. Where somebody has made a row meanwhile, that says what is known.
 */
export const NOTE_UNRECORDED = statement(
  'note_unrecorded',
  `
INSERT INTO {schema}.job_outcomes (
  tenant_id, operation_key, queue, job_name, job_id, fingerprint, status, effect, fencing_token, run_id,
  lease_expires_at, attempts, started_at, repeatable_until, deadline_at, has_own_deadline
)
VALUES (
  $1, $2, $3, $4, $5, $6, 'running', $7, (EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::bigint, 'a worker without the library',
  clock_timestamp(), 1, clock_timestamp(), COALESCE(clock_timestamp() + $8::float8 * interval '1 millisecond', 'infinity'),
  COALESCE($10::timestamptz, clock_timestamp() + $9::float8 * interval '1 millisecond'), $10::timestamptz IS NOT NULL
)
ON CONFLICT (tenant_id, operation_key) DO NOTHING
`,
  'claim',
);
