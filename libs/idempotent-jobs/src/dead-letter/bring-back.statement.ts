import { CALLS } from '../operation/calls.js';
import { statement } from '../postgres/statement.js';

/**
 * What may be done to letter `l` with operation `o`. `mode` (redrive, not_applied, applied) and `deadline` are SQL: a
 * parameter or a literal.
 */
export function verdictOf(mode: string, deadline: string): string {
  return `CASE
    WHEN l.resolved_at IS NOT NULL THEN 'resolved'
    WHEN l.tenant_id IS NULL THEN 'no_identity'
    WHEN l.reason = 'idempotency_conflict' OR l.fingerprint <> o.fingerprint THEN 'conflict'
    WHEN o.status = 'completed' AND ${mode} = 'redrive' THEN 'completed'
    WHEN o.status = 'completed' THEN 'has_completed'
    WHEN o.status IN ('pending', 'running', 'retrying') THEN 'under_way'
    WHEN ${mode} = 'redrive' AND ${IN_DOUBT} THEN 'in_doubt'
    WHEN ${mode} <> 'redrive' AND NOT ${MAYBE_APPLIED} THEN 'not_in_doubt'
    WHEN ${mode} = 'applied' THEN 'allowed'
    WHEN l.payload IS NULL AND l.step_of IS NULL AND l.queue <> '${CALLS}' THEN 'no_payload'
    WHEN ${deadline}::timestamptz IS NULL AND o.has_own_deadline AND o.deadline_at <= clock_timestamp() THEN 'deadline_passed'
    ELSE 'allowed'
  END`;
}

/** Nobody knows whether the effect happened, also because the operation's row is gone. */
const IN_DOUBT = `(COALESCE(o.status, '') = 'in_doubt' OR l.reason = 'expired' OR (o.status IS NULL AND l.reason = 'in_doubt'))`;

/** In doubt, or given up with an attempt whose effect may have happened: what a person may answer for. */
const MAYBE_APPLIED = `(${IN_DOUBT} OR (o.status IS NOT NULL AND o.doubt_since IS NOT NULL))`;

/** Makes a job id another than all before it. */
export const LIFE = `'-' || to_hex((EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::bigint)`;

/**
 * Since when a redriven operation may have had its effect. One that is looked up before each further attempt is looked up
 * now as well: that it was given up does not say that nothing happened.
 */
const KEPT_DOUBT = `(CASE WHEN $3 = 'redrive' THEN
  COALESCE(o.doubt_since, CASE WHEN o.effect = 'reconciled' AND o.attempts > 0 THEN o.started_at END) END)`;

const LETTER_HAS_JOBS = `step_of IS NULL AND queue <> '${CALLS}'`;
const HAS_JOBS = `o.step_of IS NULL AND o.queue <> '${CALLS}'`;

/**
 * A CTE that makes the operations due at once whose handlers wait for steps that were just settled. `settled`: a CTE with
 * the steps' `tenant_id` and `step_of`. The job id is new, since BullMQ has the old one put off; its first 46 characters
 * are what is derived from tenant and key. SKIP LOCKED: an operation that is being run at this moment may itself wait for
 * the step, and will find it settled.
 */
export function wokenBy(settled: string): string {
  return `woken AS (
  UPDATE {schema}.job_outcomes p SET
    available_at    = clock_timestamp(),
    dispatch_due_at = clock_timestamp(),
    job_id          = left(p.job_id, 46) || ${LIFE}
  FROM (
    SELECT w.tenant_id, w.operation_key
    FROM {schema}.job_outcomes w JOIN ${settled} s ON w.tenant_id = s.tenant_id AND w.operation_key = s.step_of
    WHERE w.status IN ('pending', 'retrying') AND w.payload IS NOT NULL
    FOR UPDATE OF w SKIP LOCKED
  ) s
  WHERE p.tenant_id = s.tenant_id AND p.operation_key = s.operation_key
)`;
}

/**
 * dead or in_doubt → to be run again, for the operations of open letters, with the letters' resolution and an audit row
 * each; all or nothing.
 *
 * Parameters: 1 letter ids; 2 what the BullMQ job ids of each operation begin with; 3 `redrive` or `not_applied`; 4 actor;
 * 5 note; 6 a new deadline (null: the old one); 7 the redrive of many that asks, 8 its runner (null: a person asks).
 *
 * One row per letter that exists comes back, with a verdict. Only `allowed` changes an operation. `completed` closes
 * the letter and runs nothing. Everything else changes nothing, except that a redrive of many lets go of the letter.
 *
 * What is reset: attempts and failures, error, a deadline that followed from the time budget. What stays: key, tenant,
 * payload, priority, a start time still to come, a deadline of the producer's own, and whether an
 * earlier attempt may have had its effect, unless a person has just said that it did not. An operation in such doubt
 * comes back as `retrying`, so that its next claim obeys the effect's rules. The fencing token grows, so
 * that nobody who still lives can write anything. The job id is new, since BullMQ may still hold the failed job under the
 * old one.
 *
 * Safe under concurrency: letter, operation and redrive are locked before they are judged, so of two redrives one finds
 * the letter resolved, and after a cancel has returned nothing is brought back any more. An operation without a row was
 * forgotten or removed by hand, and is made again; should a delivery make it first, it is under way.
 */
export const BRING_BACK = statement(
  'bring_back',
  `
WITH asked AS (
  SELECT * FROM unnest($1::uuid[], $2::text[]) AS a (letter_id, job_id_stem)
), permit AS (
  SELECT id FROM {schema}.dead_letter_redrives WHERE id = $7 AND status = 'running' AND runner_id = $8 FOR SHARE
), letter AS (
  SELECT l.*, a.job_id_stem
  FROM {schema}.dead_letters l JOIN asked a ON a.letter_id = l.id
  WHERE $7::uuid IS NULL OR (l.redrive_id = $7 AND EXISTS (SELECT FROM permit))
  ORDER BY l.id
  FOR UPDATE OF l
), operation AS (
  SELECT o.*
  FROM {schema}.job_outcomes o JOIN letter l ON o.tenant_id = l.tenant_id AND o.operation_key = l.operation_key
  ORDER BY o.tenant_id, o.operation_key
  FOR UPDATE OF o
), judged AS (
  SELECT l.*, o.tenant_id IS NOT NULL AS has_row, ${verdictOf('$3', '$6')} AS verdict
  FROM letter l LEFT JOIN operation o ON o.tenant_id = l.tenant_id AND o.operation_key = l.operation_key
), brought_back AS (
  UPDATE {schema}.job_outcomes o SET
    status           = CASE WHEN ${KEPT_DOUBT} IS NOT NULL THEN 'retrying' ELSE 'pending' END,
    fencing_token    = o.fencing_token + 1,
    lease_expires_at = NULL,
    reconcile_due_at = NULL,
    job_id           = j.job_id_stem || ${LIFE},
    redrives         = o.redrives + 1,
    redriven_from    = j.id,
    attempts         = 0,
    failures         = 0,
    worker_id        = NULL,
    error            = NULL,
    doubt_since      = ${KEPT_DOUBT},
    doubted_at       = CASE WHEN $3 = 'redrive' THEN o.doubted_at END,
    repeatable_until = CASE WHEN ${KEPT_DOUBT} IS NOT NULL THEN o.repeatable_until END,
    deadline_at      = CASE WHEN $6::timestamptz IS NOT NULL THEN $6 WHEN o.has_own_deadline THEN o.deadline_at END,
    has_own_deadline = o.has_own_deadline OR $6::timestamptz IS NOT NULL,
    -- A step is run by the operation that it belongs to, a call by its next caller.
    payload          = CASE WHEN ${HAS_JOBS} THEN j.payload END,
    dispatch_due_at  = CASE WHEN ${HAS_JOBS} THEN clock_timestamp() END,
    dispatches       = 0,
    settled_at       = NULL,
    expires_at       = NULL
  FROM judged j
  WHERE j.verdict = 'allowed' AND o.tenant_id = j.tenant_id AND o.operation_key = j.operation_key
  RETURNING j.id, o.tenant_id, o.step_of
), ${wokenBy('brought_back')}, made_again AS (
  INSERT INTO {schema}.job_outcomes (
    tenant_id, operation_key, queue, job_name, job_id, fingerprint, status, fencing_token, redrives, redriven_from, payload,
    deadline_at, has_own_deadline, trace_context, step_of, step, dispatch_due_at
  )
  SELECT tenant_id, operation_key, queue, job_name, job_id_stem || ${LIFE}, fingerprint, 'pending', fencing_token, 1, id,
         CASE WHEN ${LETTER_HAS_JOBS} THEN payload END, $6, $6::timestamptz IS NOT NULL, trace_context, step_of, step,
         CASE WHEN ${LETTER_HAS_JOBS} THEN clock_timestamp() END
  FROM judged
  WHERE verdict = 'allowed' AND NOT has_row
  ON CONFLICT (tenant_id, operation_key) DO NOTHING
  RETURNING redriven_from AS id
), told AS (
  SELECT j.id, j.queue, j.tenant_id, j.operation_key, CASE
    WHEN j.verdict <> 'allowed' OR EXISTS (SELECT FROM brought_back b WHERE b.id = j.id)
      OR EXISTS (SELECT FROM made_again m WHERE m.id = j.id) THEN j.verdict
    ELSE 'under_way'
  END AS verdict
  FROM judged j
), closed AS (
  UPDATE {schema}.dead_letters l SET
    resolved_at     = CASE WHEN t.verdict IN ('allowed', 'completed') THEN clock_timestamp() END,
    resolution      = CASE WHEN t.verdict = 'completed' THEN 'completed'
                           WHEN t.verdict = 'allowed' AND $3 = 'redrive' THEN 'redriven'
                           WHEN t.verdict = 'allowed' THEN 'not_applied' END,
    actor           = CASE WHEN t.verdict IN ('allowed', 'completed') THEN $4 END,
    note            = CASE WHEN t.verdict IN ('allowed', 'completed') THEN $5 END,
    redrive_id      = CASE WHEN t.verdict IN ('allowed', 'completed') THEN l.redrive_id END,
    -- Announced once in any case; again only while it is open.
    dispatch_due_at = CASE WHEN l.dispatches = 0 OR t.verdict NOT IN ('allowed', 'completed') THEN l.dispatch_due_at END
  FROM told t
  WHERE l.id = t.id AND t.verdict <> 'resolved' AND (t.verdict IN ('allowed', 'completed') OR $7::uuid IS NOT NULL)
), audited AS (
  INSERT INTO {schema}.job_actions (action, actor, note, queue, letter_id, redrive_id, tenant_id, operation_key, details)
  SELECT CASE WHEN $3 = 'redrive' THEN 'redrive' ELSE 'resolve_not_applied' END, $4, $5, queue, id, $7, tenant_id, operation_key,
         json_build_object('verdict', verdict)
  FROM told WHERE verdict IN ('allowed', 'completed')
)
SELECT id, queue, verdict FROM told
`,
);

/**
 * The same judgement without changing anything. Parameters: ids, mode, a new deadline.
 */
export const JUDGE = statement(
  'judge_letters',
  `
SELECT l.id, l.queue, ${verdictOf('$2', '$3')} AS verdict
FROM {schema}.dead_letters l
LEFT JOIN {schema}.job_outcomes o ON o.tenant_id = l.tenant_id AND o.operation_key = l.operation_key
WHERE l.id = ANY ($1::uuid[])
`,
);
