import { statement } from '../postgres/statement.js';

/**
 * Wins the right to run operations, or says why not.
 *
 * Parameters: queue, effect, lease in ms, how long the effect is repeatable in ms (null: forever), time budget in ms
 * (null: none); then parallel arrays, one element per delivery: tenant, key, job name, job id, fingerprint, worker (one
 * per run), deadline given at enqueue (null: none), when its job could first run (ms since 1970), and whether the row of
 * its operation is known to be there, or to have never been. No two elements name the same operation.
 *
 * One row comes back per delivery. `token` is set where the claim was won. Otherwise the other columns show the row
 * as the statement's snapshot saw it; a row written since by somebody else is not in that snapshot (`status` is null,
 * or claimable), and the caller asks again.
 *
 * Safe under concurrency: rivals meet on the unique row. ON CONFLICT DO UPDATE waits for the rival's commit and tests
 * its condition against the row's latest version, so exactly one of them moves the row to 'running', under a token
 * nobody else has had. Rows are taken in key order, so that overlapping batches cannot deadlock.
 *
 * An operation that is not in the ledger may have completed and been forgotten. `is_old` tells that its job is not
 * younger than what was forgotten of its queue: nothing was claimed then, and the caller makes sure first.
 *
 * Asking twice for the same run (its first answer was lost on the way) returns the claim it already has.
 */
export const CLAIM = statement(
  'claim',
  `
WITH delivery AS (
  SELECT * FROM unnest(
    $6::text[], $7::text[], $8::text[], $9::text[], $10::text[], $11::text[], $12::timestamptz[], $13::float8[], $14::boolean[]
  ) WITH ORDINALITY AS d (
    tenant_id, operation_key, job_name, job_id, fingerprint, worker_id, deadline_at, available_ms, is_known, n
  )
), asked AS (
  SELECT *, NOT is_known AND COALESCE(
    timestamptz 'epoch' + available_ms * interval '1 millisecond'
      <= (SELECT forgotten_until FROM {schema}.job_queues WHERE queue = $1),
    false) AS is_old
  FROM delivery
), claimed AS (
  INSERT INTO {schema}.job_outcomes AS o (
    tenant_id, operation_key, queue, job_name, job_id, fingerprint, status, effect, fencing_token, worker_id,
    lease_expires_at, attempts, started_at, repeatable_until, deadline_at, has_own_deadline
  )
  SELECT
    tenant_id, operation_key, $1, job_name, job_id, fingerprint, 'running', $2, 1, worker_id,
    clock_timestamp() + $3::float8 * interval '1 millisecond', 1, clock_timestamp(),
    COALESCE(clock_timestamp() + $4::float8 * interval '1 millisecond', 'infinity'),
    COALESCE(deadline_at, clock_timestamp() + $5::float8 * interval '1 millisecond'), deadline_at IS NOT NULL
  FROM asked
  WHERE NOT is_old
  ORDER BY tenant_id, operation_key
  ON CONFLICT (tenant_id, operation_key) DO UPDATE SET
    status           = 'running',
    effect           = excluded.effect,
    fencing_token    = o.fencing_token + CASE WHEN o.status = 'running' AND o.worker_id = excluded.worker_id THEN 0 ELSE 1 END,
    attempts         = o.attempts + CASE WHEN o.status = 'running' AND o.worker_id = excluded.worker_id THEN 0 ELSE 1 END,
    worker_id        = excluded.worker_id,
    lease_expires_at = excluded.lease_expires_at,
    started_at       = excluded.started_at,
    -- The most careful effect that any attempt declared rules.
    repeatable_until = LEAST(o.repeatable_until, excluded.repeatable_until),
    deadline_at      = COALESCE(o.deadline_at, excluded.deadline_at),
    -- Taking over from a worker that vanished: whether its effect happened is not known.
    doubt_since      = CASE WHEN o.status = 'running' AND o.worker_id <> excluded.worker_id
                            THEN COALESCE(o.doubt_since, o.started_at) ELSE o.doubt_since END
  WHERE o.fingerprint = excluded.fingerprint AND o.queue = excluded.queue
    AND (
      (o.status = 'pending' AND COALESCE(o.available_at <= clock_timestamp(), true))
      OR (o.status = 'retrying' AND COALESCE(o.available_at <= clock_timestamp(), true)
          AND (o.doubt_since IS NULL OR clock_timestamp() < o.repeatable_until))
      OR (o.status = 'running' AND o.lease_expires_at <= clock_timestamp() AND clock_timestamp() < o.repeatable_until)
      OR (o.status = 'running' AND o.worker_id = excluded.worker_id)
    )
  RETURNING
    o.tenant_id, o.operation_key, o.fencing_token, o.attempts, o.failures, o.doubt_since, o.deadline_at,
    EXTRACT(EPOCH FROM o.deadline_at - clock_timestamp())::float8 * 1000 AS remaining_ms,
    -- Apart, because Postgres before 17 cannot subtract from infinity.
    (EXTRACT(EPOCH FROM o.repeatable_until)::float8 - EXTRACT(EPOCH FROM clock_timestamp())::float8) * 1000 AS repeatable_ms
)
SELECT
  a.n,
  c.fencing_token AS token,
  c.attempts,
  c.failures,
  c.doubt_since,
  c.deadline_at,
  c.remaining_ms,
  c.repeatable_ms,
  o.status,
  o.fingerprint = a.fingerprint AND o.queue = $1 AS is_same_request,
  o.result::text AS result,
  a.is_old,
  EXTRACT(EPOCH FROM o.available_at - clock_timestamp())::float8 * 1000 AS wait_ms,
  o.fencing_token AS seen_token,
  o.worker_id AS seen_worker_id,
  o.attempts AS seen_attempts,
  o.started_at AS seen_started_at,
  EXTRACT(EPOCH FROM o.lease_expires_at - clock_timestamp())::float8 * 1000 AS lease_left_ms,
  (o.status = 'running' OR o.doubt_since IS NOT NULL) AND o.repeatable_until <= clock_timestamp() AS is_past_repeating
FROM asked a
LEFT JOIN claimed c ON c.tenant_id = a.tenant_id AND c.operation_key = a.operation_key
LEFT JOIN {schema}.job_outcomes o ON o.tenant_id = a.tenant_id AND o.operation_key = a.operation_key
ORDER BY a.n
`,
);
