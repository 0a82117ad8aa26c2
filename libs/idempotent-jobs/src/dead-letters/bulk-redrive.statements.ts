import { statement } from '../ledger/postgres/statement.js';
import { INTO_AUDIT } from '../ledger/record/audit.js';
import { MATCHES_FILTER } from './letter.queries.js';

/** What can be redriven as it is: with an identity of its own, and known not to have happened. */
const REDRIVABLE = `l.resolved_at IS NULL AND l.tenant_id IS NOT NULL AND l.reason NOT IN ('idempotency_conflict', 'in_doubt', 'expired')`;

/** How many open letters match, by whether they can be redriven as they are. Parameters: the filter. */
export const COUNT_REDRIVABLE = statement(
  'count_redrivable',
  `
SELECT count(*) FILTER (WHERE ${REDRIVABLE})::integer AS redrivable,
       count(*) FILTER (WHERE NOT (${REDRIVABLE}))::integer AS others
FROM {schema}.dead_letters l
WHERE ${MATCHES_FILTER} AND l.resolved_at IS NULL
`,
);

/**
 * Begins a redrive: takes the matching letters on, all at once, so that it has an end. Parameters: the filter (1 is the
 * queue), 8 actor, 9 note, 10 filter as JSON, 11 letters a second, 12 canary, 13 highest share of failures. No row: no
 * letter matches. Fails on dead_letter_redrives_one_per_queue while another redrive of the queue is running, which also
 * means that no two redrives hold one letter.
 */
export const START_REDRIVE = statement(
  'start_redrive',
  `
WITH chosen AS (
  SELECT l.id FROM {schema}.dead_letters l WHERE ${MATCHES_FILTER} AND ${REDRIVABLE}
  -- As all do who lock several letters, so that they wait for each other and never in a circle.
  ORDER BY l.id FOR UPDATE OF l
), started AS (
  INSERT INTO {schema}.dead_letter_redrives (queue, filter, actor, note, rate_per_second, canary, max_failure_share, letters)
  SELECT $1, $10::json, $8, $9, $11, $12, $13, (SELECT count(*) FROM chosen)
  WHERE EXISTS (SELECT FROM chosen)
  RETURNING id, letters
), taken_on AS (
  UPDATE {schema}.dead_letters l SET redrive_id = s.id FROM chosen c, started s WHERE l.id = c.id
), audited AS (
  ${INTO_AUDIT}
  SELECT 'redrive_many', $8, $9, id, $1, NULL, NULL, NULL, json_build_object('filter', $10::json, 'letters', letters)
  FROM started
)
SELECT id FROM started
`,
);

/**
 * Takes a running redrive that nobody carries on: a new one, or one whose process has died. Parameters: runner, lease in
 * ms. SKIP LOCKED: of two processes one gets it.
 */
export const TAKE_REDRIVE = statement(
  'take_redrive',
  `
UPDATE {schema}.dead_letter_redrives r
SET runner_id = $1, lease_expires_at = clock_timestamp() + $2::float8 * interval '1 millisecond'
WHERE r.id = (
  SELECT id FROM {schema}.dead_letter_redrives
  WHERE status = 'running' AND (lease_expires_at IS NULL OR lease_expires_at <= clock_timestamp())
  ORDER BY created_at LIMIT 1 FOR UPDATE SKIP LOCKED
)
RETURNING r.id, r.queue, json_build_object(
  'ratePerSecond', r.rate_per_second, 'canary', r.canary, 'maxFailureShare', r.max_failure_share) AS pace
`,
);

/** Keeps the lease of the redrive. Parameters: redrive, runner, lease in ms. No row: it has ended, or is another's. */
export const KEEP_REDRIVE = statement(
  'keep_redrive',
  `
UPDATE {schema}.dead_letter_redrives
SET lease_expires_at = clock_timestamp() + $3::float8 * interval '1 millisecond'
WHERE id = $1 AND runner_id = $2 AND status = 'running'
RETURNING id
`,
);

/** Lets go of it, so that another process can go on at once. Parameters: redrive, runner. */
export const LEAVE_REDRIVE = statement(
  'leave_redrive',
  `UPDATE {schema}.dead_letter_redrives SET lease_expires_at = NULL WHERE id = $1 AND runner_id = $2 AND status = 'running'`,
);

/**
 * How far redrives are, newest first. Parameters: ids (null: all), queue (null: any), tenant that they are limited to (null:
 * any), how many. An operation that
 * somebody has redriven again by another letter has left this redrive, and counts as ended.
 */
export const REDRIVE_STATES = statement(
  'redrive_states',
  `
SELECT r.id, r.queue, r.status, r.ended_because AS "endedBecause", r.filter, r.actor, r.note, r.letters, p.progress,
       r.created_at AS "createdAt", r.ended_at AS "endedAt"
FROM (
  SELECT * FROM {schema}.dead_letter_redrives
  WHERE ($1::uuid[] IS NULL OR id = ANY ($1)) AND ($2::text IS NULL OR queue = $2)
    AND ($3::text IS NULL OR filter->>'tenantId' = $3)
  ORDER BY created_at DESC LIMIT $4
) r
CROSS JOIN LATERAL (
  SELECT json_build_object(
    'left', count(*) FILTER (WHERE l.resolved_at IS NULL),
    'redriven', count(*) FILTER (WHERE l.resolution = 'redriven'),
    'underWay', count(*) FILTER (WHERE l.resolution = 'redriven' AND o.status IN ('pending', 'running', 'retrying')),
    'failed', count(*) FILTER (WHERE l.resolution = 'redriven' AND o.status IN ('dead', 'in_doubt'))) AS progress
  FROM {schema}.dead_letters l
  LEFT JOIN {schema}.job_outcomes o
    ON o.tenant_id = l.tenant_id AND o.operation_key = l.operation_key AND o.redriven_from = l.id
  WHERE l.redrive_id = r.id
) p
ORDER BY r.created_at DESC
`,
);

/** The letters a redrive comes to next, oldest first. Parameters: redrive, how many. */
export const NEXT_LETTERS = statement(
  'next_letters',
  `
SELECT id
FROM {schema}.dead_letters
WHERE redrive_id = $1 AND resolved_at IS NULL
ORDER BY created_at, id
LIMIT $2
`,
);

/**
 * Ends a running redrive, with an audit row. Parameters: redrive, new status, because, actor (null: who began it), note
 * (null: because), the action's name, runner (null: a person). No row: it was not running, or is another runner's.
 */
export const END_REDRIVE = statement(
  'end_redrive',
  `
WITH ended AS (
  UPDATE {schema}.dead_letter_redrives
  SET status = $2, ended_because = $3, ended_at = clock_timestamp(), lease_expires_at = NULL
  WHERE id = $1 AND status = 'running' AND ($7::text IS NULL OR runner_id = $7)
  RETURNING *
), audited AS (
  ${INTO_AUDIT}
  SELECT $6, COALESCE($4, actor), COALESCE($5, $3, note), id, queue, NULL, NULL, NULL, NULL FROM ended
)
SELECT id FROM ended
`,
);
