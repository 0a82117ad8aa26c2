import { inMs, statement } from '../postgres/statement.js';

/**
 * Whether a job that could first run at `availableMs` (ms since 1970) is younger than what was forgotten up to
 * `forgottenUntil`. A job whose time is more than an hour ahead does not count as young: clocks differ by less, so the
 * time is made up.
 */
export const isYoung = <const Ms extends string>(availableMs: Ms, forgottenUntil: string) =>
  `(timestamptz 'epoch' + ${availableMs} * interval '1 millisecond' > ${forgottenUntil}
    AND timestamptz 'epoch' + ${availableMs} * interval '1 millisecond' <= clock_timestamp() + interval '1 hour')` as const;

/**
 * Whether an operation has a row, which is then kept from being pruned until the transaction ends. `is_there` without
 * `is_kept` means that another transaction has locked the row, which is not waited for.
 */
export const KEEP_ROW = statement(
  'keep_row',
  `
WITH kept AS (
  SELECT true FROM {schema}.job_outcomes WHERE tenant_id = :tenantId AND operation_key = :operationKey FOR KEY SHARE SKIP LOCKED
)
SELECT
  EXISTS (SELECT FROM kept) AS is_kept,
  EXISTS (SELECT FROM {schema}.job_outcomes WHERE tenant_id = :tenantId AND operation_key = :operationKey) AS is_there
`,
  'claim',
);

/**
 * Whether a job without a row is younger than everything that was forgotten of its queue, so that its operation cannot be
 * among it. Asked after {@link KEEP_ROW} has found nothing: the statement that pruned a row before that has also raised
 * the watermark.
 */
export const IS_YOUNG = statement(
  'is_young',
  `
SELECT COALESCE(
  (SELECT forgotten_until IS NULL OR ${isYoung(':availableMs::float8', 'forgotten_until')} FROM {schema}.job_queues WHERE queue = :queue),
  true) AS is_young
`,
  'claim',
);

/**
 * Records an attempt of a worker without the library, which itself recorded nothing, as one that was claimed and has
 * vanished. So the next claim decides by the effect. No row comes back. An existing row is left alone, because it says
 * more.
 */
export const NOTE_UNRECORDED = statement(
  'note_unrecorded',
  `
INSERT INTO {schema}.job_outcomes (
  tenant_id, operation_key, origin, queue, job_name, job_id, fingerprint, status, effect, fencing_token, run_id,
  lease_expires_at, attempts, started_at, repeatable_until, deadline_at, has_own_deadline
)
VALUES (
  :tenantId, :operationKey, 'job', :queue, :jobName, :jobId, :fingerprint, 'running', :effect, (EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::bigint, 'a worker without the library',
  clock_timestamp(), 1, clock_timestamp(), COALESCE(${inMs(':repeatableMs::float8')}, 'infinity'),
  COALESCE(:deadline::timestamptz, ${inMs(':budgetMs::float8')}), :deadline::timestamptz IS NOT NULL
)
ON CONFLICT (tenant_id, operation_key) DO NOTHING
`,
  'claim',
);
