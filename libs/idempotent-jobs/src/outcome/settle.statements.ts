import { LIFE, wokenBy } from '../dead-letter/bring-back.statement.js';
import { statement } from '../postgres/statement.js';

/*
 * What somebody who knows (a webhook, most likely) says about an operation, at any time. Parameters: tenant, key, source,
 * note, then as told. One row comes back if the operation exists, with a verdict; all but `settled` change nothing. The
 * letter, if one is open, and the operation are locked before they are judged, in the order of those who close letters.
 */

const LOCKED = `
letter AS (
  SELECT * FROM {schema}.dead_letters
  WHERE tenant_id = $1 AND operation_key = $2 AND resolved_at IS NULL AND reason NOT IN ('idempotency_conflict', 'expired')
  FOR UPDATE
), operation AS (
  SELECT * FROM {schema}.job_outcomes
  WHERE tenant_id = $1 AND operation_key = $2 AND (SELECT count(*) FROM letter) >= 0
  FOR UPDATE
)`;

/**
 * Anything that was ever begun and has not completed → completed, with the result as JSON text ($5). The token grows, so
 * that an attempt under way can write nothing any more. Closes the letter. Retention in ms: $6 where the queue has told
 * none.
 */
export const SETTLE_APPLIED = statement(
  'settle_applied',
  `
WITH ${LOCKED}, judged AS (
  SELECT *, CASE
    WHEN status = 'completed' THEN 'completed'
    WHEN fencing_token = 0 THEN 'not_started'
    ELSE 'settled'
  END AS verdict
  FROM operation
), applied AS (
  UPDATE {schema}.job_outcomes o SET
    status           = 'completed',
    fencing_token    = o.fencing_token + 1,
    result           = $5::json,
    result_omitted   = NULL,
    error            = NULL,
    payload          = NULL,
    doubt_since      = NULL,
    doubted_at       = NULL,
    reconcile_due_at = NULL,
    lease_expires_at = NULL,
    dispatch_due_at  = NULL,
    settled_at       = clock_timestamp(),
    expires_at       = clock_timestamp() + interval '1 millisecond' * COALESCE(
      (SELECT completed_retention_ms FROM {schema}.job_queues q WHERE q.queue = o.queue), $6::float8)
  FROM judged j
  WHERE j.verdict = 'settled' AND o.tenant_id = j.tenant_id AND o.operation_key = j.operation_key
  RETURNING o.tenant_id, o.step_of
), ${wokenBy('applied')}, closed AS (
  UPDATE {schema}.dead_letters l
  SET resolved_at = clock_timestamp(), resolution = 'applied', actor = $3, note = $4,
      dispatch_due_at = CASE WHEN l.dispatches = 0 THEN l.dispatch_due_at END
  FROM letter WHERE l.id = letter.id AND EXISTS (SELECT FROM applied)
), audited AS (
  INSERT INTO {schema}.job_actions (action, actor, note, queue, letter_id, tenant_id, operation_key)
  SELECT 'settle_applied', $3, $4, queue, (SELECT id FROM letter), tenant_id, operation_key
  FROM judged WHERE verdict = 'settled'
)
SELECT verdict, status, queue, job_name, job_id, attempts FROM judged
`,
);

/**
 * In doubt with nobody's letter, vanished, or retrying after a doubt → pending: it did not happen, and may be run again,
 * with the attempts that are left. Its next job is new ($5: what job ids of the operation begin with): BullMQ has the old
 * one put off until the next question. `under_way`: an attempt runs, and will tell by itself. `outdated`: it is about a
 * time ($6; null: now) before the last attempt was started. `no_doubt`: that is known already. `buried`: there is an open
 * letter, which is resolved.
 */
export const SETTLE_NOT_APPLIED = statement(
  'settle_not_applied',
  `
WITH ${LOCKED}, judged AS (
  SELECT *, CASE
    WHEN status = 'completed' THEN 'completed'
    WHEN fencing_token = 0 THEN 'not_started'
    WHEN started_at > $6::timestamptz THEN 'outdated'
    WHEN status = 'running' AND lease_expires_at > clock_timestamp() THEN 'under_way'
    WHEN EXISTS (SELECT FROM letter) THEN 'buried'
    WHEN status = 'dead' THEN 'dead'
    WHEN status IN ('pending', 'retrying') AND doubt_since IS NULL THEN 'no_doubt'
    ELSE 'settled'
  END AS verdict
  FROM operation
), settled AS (
  UPDATE {schema}.job_outcomes o SET
    status           = 'pending',
    fencing_token    = o.fencing_token + 1,
    doubt_since      = NULL,
    doubted_at       = NULL,
    reconcile_due_at = NULL,
    lease_expires_at = NULL,
    repeatable_until = NULL,
    expires_at       = NULL,
    available_at     = NULL,
    job_id           = CASE WHEN o.payload IS NULL THEN o.job_id ELSE $5 || ${LIFE} END,
    dispatch_due_at  = CASE WHEN o.payload IS NOT NULL THEN clock_timestamp() END
  FROM judged j
  WHERE j.verdict = 'settled' AND o.tenant_id = j.tenant_id AND o.operation_key = j.operation_key
  RETURNING o.tenant_id, o.step_of
), ${wokenBy('settled')}, audited AS (
  INSERT INTO {schema}.job_actions (action, actor, note, queue, tenant_id, operation_key)
  SELECT 'settle_not_applied', $3, $4, queue, tenant_id, operation_key FROM judged WHERE verdict = 'settled'
)
SELECT verdict, status, queue, job_name, job_id, attempts FROM judged
`,
);
