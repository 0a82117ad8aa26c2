import { statement } from '../ledger/postgres/statement.js';
import { COMPLETED } from '../ledger/record/record.statements.js';

/*
 * What was decided about letters and operations, written. Both are locked by the same transaction, and nothing is decided
 * here.
 */

/** The fencing token grows, so that no worker that still lives can write anything. */
const TAKEN_BACK = `fencing_token = o.fencing_token + 1, lease_expires_at = NULL, reconcile_due_at = NULL`;

/** Makes a job id another than all before it, since BullMQ may still hold the old one. */
const LIFE = `'-' || to_hex((EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::bigint)`;

/**
 * When an operation is forgotten that ends now. `ms` is what its queue `q` has told; where it has told nothing,
 * `:retentionMs` holds.
 */
const keptUntil = <const Ms extends string>(ms: Ms, queue: string) =>
  `clock_timestamp() + interval '1 millisecond' * COALESCE(
    (SELECT ${ms} FROM {schema}.job_queues q WHERE q.queue = ${queue}), :retentionMs::float8)` as const;

const KEPT_MS = 'completed_retention_ms';
const KEPT_LIKE_LETTERS_MS = 'GREATEST(letter_retention_ms, completed_retention_ms)';

/**
 * Operations of letters are run again.
 *
 * What is put on its queue again is a job. A step is run by the operation that it belongs to, a call by its next caller.
 *
 * What is reset: attempts and failures, error, a deadline that followed from the time budget. What stays: key, tenant,
 * priority, a start time still to come, a deadline of the producer's own. With a doubt it comes back as `retrying`, so
 * that its next claim obeys the effect's rules.
 */
export const RUN_AGAIN = statement(
  'run_again',
  `
UPDATE {schema}.job_outcomes o SET
  ${TAKEN_BACK},
  status           = CASE WHEN a.keeps_doubt THEN 'retrying' ELSE 'pending' END,
  job_id           = a.job_id_stem || ${LIFE},
  redrives         = o.redrives + 1,
  redriven_from    = l.id,
  doubt_since      = CASE WHEN a.keeps_doubt THEN COALESCE(o.doubt_since, o.started_at) END,
  doubted_at       = CASE WHEN a.keeps_doubt THEN o.doubted_at END,
  repeatable_until = CASE WHEN a.keeps_doubt THEN o.repeatable_until END,
  deadline_at      = COALESCE(:deadline::timestamptz, CASE WHEN o.has_own_deadline THEN o.deadline_at END),
  has_own_deadline = o.has_own_deadline OR :deadline IS NOT NULL,
  payload          = CASE WHEN o.origin = 'job' THEN l.payload END,
  dispatch_due_at  = CASE WHEN o.origin = 'job' THEN clock_timestamp() END,
  attempts = 0, failures = 0, dispatches = 0, run_id = NULL, error = NULL, settled_at = NULL, expires_at = NULL
FROM unnest(:letterId::uuid[], :jobIdStem::text[], :keepsDoubt::boolean[]) AS a (letter_id, job_id_stem, keeps_doubt)
JOIN {schema}.dead_letters l ON l.id = a.letter_id
WHERE o.tenant_id = l.tenant_id AND o.operation_key = l.operation_key
`,
);

/**
 * The same for operations whose rows were forgotten, or removed by hand. A letter that does not come back has an operation
 * again: a delivery was faster, and is running it.
 */
export const MAKE_AGAIN = statement(
  'make_again',
  `
INSERT INTO {schema}.job_outcomes (
  tenant_id, operation_key, origin, queue, job_name, job_id, fingerprint, status, fencing_token, redrives, redriven_from, payload,
  deadline_at, has_own_deadline, trace_context, step_of, step, dispatch_due_at
)
SELECT l.tenant_id, l.operation_key, l.origin, l.queue, l.job_name, a.job_id_stem || ${LIFE}, l.fingerprint, 'pending', l.fencing_token,
       1, l.id, CASE WHEN l.origin = 'job' THEN l.payload END,
       :deadline, :deadline::timestamptz IS NOT NULL, l.trace_context, l.step_of, l.step,
       CASE WHEN l.origin = 'job' THEN clock_timestamp() END
FROM unnest(:letterId::uuid[], :jobIdStem::text[]) AS a (letter_id, job_id_stem)
JOIN {schema}.dead_letters l ON l.id = a.letter_id
ON CONFLICT (tenant_id, operation_key) DO NOTHING
RETURNING redriven_from AS id
`,
);

/**
 * An operation becomes completed on somebody's word that its effect happened. From then on it is replayed like any other.
 */
export const COMPLETE_BY_WORD = statement(
  'complete_by_word',
  `
UPDATE {schema}.job_outcomes o SET
  ${COMPLETED}, fencing_token = o.fencing_token + 1, result = :result::json, result_omitted = NULL,
  expires_at = ${keptUntil(KEPT_MS, 'o.queue')}
WHERE o.tenant_id = :tenantId AND o.operation_key = :operationKey
`,
);

/** The same for an operation whose row is gone. *No row*: a delivery has made the row meanwhile, and is running it. */
export const RECREATE_COMPLETED = statement(
  'remember_completed',
  `
INSERT INTO {schema}.job_outcomes (
  tenant_id, operation_key, origin, queue, job_name, job_id, fingerprint, status, fencing_token, result, step_of, step, settled_at,
  expires_at
)
SELECT l.tenant_id, l.operation_key, l.origin, l.queue, l.job_name, l.job_id, l.fingerprint, 'completed', l.fencing_token + 1, :result::json,
       l.step_of, l.step, clock_timestamp(), ${keptUntil(KEPT_MS, 'l.queue')}
FROM {schema}.dead_letters l WHERE l.id = :letterId
ON CONFLICT (tenant_id, operation_key) DO NOTHING
RETURNING true
`,
);

/**
 * An operation becomes dead, or stays so. It is remembered as long as its letter, and as long as a completed one, so that
 * no stray retry runs it.
 */
export const GIVE_UP = statement(
  'give_up',
  `
UPDATE {schema}.job_outcomes o SET
  ${TAKEN_BACK}, status = 'dead', payload = NULL, dispatch_due_at = NULL,
  settled_at = COALESCE(o.settled_at, clock_timestamp()),
  expires_at = ${keptUntil(KEPT_LIKE_LETTERS_MS, 'o.queue')}
WHERE o.tenant_id = :tenantId AND o.operation_key = :operationKey
`,
);

/**
 * An operation becomes pending: it did not happen, and may be run again with the attempts that are left. Its next job is a
 * new one, since BullMQ has the old one put off until the next question.
 */
export const PUT_BACK = statement(
  'put_back',
  `
UPDATE {schema}.job_outcomes o SET
  ${TAKEN_BACK}, status = 'pending', doubt_since = NULL, doubted_at = NULL, repeatable_until = NULL, expires_at = NULL,
  available_at = NULL,
  job_id = CASE WHEN o.payload IS NULL THEN o.job_id ELSE :jobIdStem || ${LIFE} END,
  dispatch_due_at = CASE WHEN o.payload IS NOT NULL THEN clock_timestamp() END
WHERE o.tenant_id = :tenantId AND o.operation_key = :operationKey
`,
);

/**
 * Operations become due at once whose handlers wait for steps that have changed. The job id is new, since BullMQ has the
 * old one put off; its first 46 characters are what is derived from tenant and key. SKIP LOCKED: an operation that is
 * being run at this moment may itself wait for the step, and will find it changed.
 */
export const WAKE = statement(
  'wake',
  `
UPDATE {schema}.job_outcomes p SET
  available_at    = clock_timestamp(),
  dispatch_due_at = clock_timestamp(),
  job_id          = left(p.job_id, 46) || ${LIFE}
FROM (
  SELECT w.tenant_id, w.operation_key
  FROM {schema}.job_outcomes w
  JOIN unnest(:tenantId::text[], :stepOf::text[]) AS s (tenant_id, step_of) ON w.tenant_id = s.tenant_id AND w.operation_key = s.step_of
  WHERE w.status IN ('pending', 'retrying') AND w.payload IS NOT NULL
  FOR UPDATE OF w SKIP LOCKED
) s
WHERE p.tenant_id = s.tenant_id AND p.operation_key = s.operation_key
`,
);

/** Letters are closed. */
export const CLOSE_LETTERS = statement(
  'close_letters',
  `
UPDATE {schema}.dead_letters l SET
  resolved_at     = clock_timestamp(),
  resolution      = a.resolution,
  actor           = :actor,
  note            = :note,
  -- Announced once in any case; again only while it is open.
  dispatch_due_at = CASE WHEN l.dispatches = 0 THEN l.dispatch_due_at END
FROM unnest(:letterId::uuid[], :resolution::text[]) AS a (letter_id, resolution)
WHERE l.id = a.letter_id
`,
);

/** A redrive of many lets go of letters that it may not bring back, which stay open. */
export const LET_GO = statement(
  'let_go',
  'UPDATE {schema}.dead_letters SET redrive_id = NULL WHERE id = ANY (:letterIds::uuid[])',
);
