import { inMs, locked, ms, lookedUpByKey, rowsOf, statement } from '../postgres/statement.js';

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

/* `o` is the row as it was, and `a` is the delivery that wants it. */

const IS_MINE = `(o.run_id = a.run_id AND o.lease_expires_at IS NOT NULL)`;
const IS_FREE = `COALESCE(o.lease_expires_at <= clock_timestamp(), true)`;
const IS_AVAILABLE = `COALESCE(o.available_at <= clock_timestamp(), true)`;
const IS_REPEATABLE = `clock_timestamp() < o.repeatable_until` as const;
/* All times that a claim begins count from the time of its statement, `a.now`, or from when an attempt began that is claimed late. */
const BEGAN = `COALESCE(a.began_at, a.now)` as const;
const LEASE_END = `a.now + :leaseMs::float8 * interval '1 millisecond'` as const;
const REPEATABLE_UNTIL =
  `COALESCE(${BEGAN} + :repeatableMs::float8 * interval '1 millisecond', 'infinity')` as const;
const DEADLINE = `COALESCE(a.deadline_at, ${BEGAN} + :budgetMs::float8 * interval '1 millisecond')` as const;

/** Whether another attempt may follow one that failed. For the effect `reconciled`, the service is asked first. */
const MAY_FOLLOW =
  `(o.doubt_since IS NULL AND (:effect <> 'reconciled' OR o.attempts = 0) OR :effect <> 'reconciled' AND ${IS_REPEATABLE})` as const;

/** Whether the claimant must ask whether the effect happened before anything else. */
const MUST_ASK = `(:canReconcile::boolean AND (
  o.status = 'in_doubt' OR (o.status = 'running' AND (:effect = 'reconciled' OR NOT ${IS_REPEATABLE})) OR (o.status = 'retrying' AND NOT ${MAY_FOLLOW})
))` as const;

/** The columns of row `o` that a claim returns when it was won. */
const CLAIMED = `o.tenant_id, o.operation_key, o.status, o.fencing_token, o.attempts, o.failures, o.doubt_since, o.doubted_at, o.deadline_at,
    o.repeatable_until, o.started_at, o.delay_ms`;

/**
 * Whether a won claim `c` is what nearly all claims are: the first attempt of an operation of which nothing is known but
 * what was asked for. The claimant can tell all of such a claim from the time of the statement.
 */
const IS_FIRST = `COALESCE(
    (a.status IS NULL OR a.status = 'pending') AND a.last_trace IS NULL
    AND c.status = 'running' AND c.fencing_token = a.first_token AND c.attempts = 1 AND c.failures = 0 AND c.doubt_since IS NULL
    AND c.doubted_at IS NULL AND c.delay_ms IS NULL AND c.started_at = a.now AND c.repeatable_until = ${REPEATABLE_UNTIL}
    AND c.deadline_at IS NOT DISTINCT FROM ${DEADLINE},
  false)` as const;

/** The columns of row `o` that a delivery `a` sees when it has not won the claim. */
const SEEN = `
  o.status,
  o.fingerprint = a.fingerprint AND o.queue = :queue AS is_same_request,
  o.result::text AS result,
  o.degraded,
  ${ms('COALESCE(o.reconcile_due_at, o.available_at) - clock_timestamp()')} AS wait_ms,
  o.reconcile_due_at IS NOT NULL AS is_reconciling,
  o.fencing_token AS seen_token,
  o.run_id AS seen_run_id,
  o.effect AS seen_effect,
  o.attempts AS seen_attempts,
  o.started_at AS seen_started_at,
  ${ms('o.lease_expires_at - clock_timestamp()')} AS lease_left_ms,
  (o.status = 'running' OR o.doubt_since IS NOT NULL) AND o.repeatable_until <= clock_timestamp() AS is_past_repeating` as const;

/**
 * The part of a WITH that wins the right to run operations, or to ask about those in doubt, or says why not.
 *
 * No two elements may name the same operation.
 *
 * A claimant that must ask first gets the row as 'in_doubt' under a lease; no attempt is counted before one is started.
 *
 * `answered` has no row for a first attempt (IS_FIRST) that was won; every other delivery has one, with its number `n`. The
 * time and the token of first attempts are those of `patience`. `token` is set when the claim was won. Otherwise the other
 * columns show the row as the statement's snapshot saw it. A row that a rival has written since is not in that snapshot
 * (`status` is null, or claimable), and the caller asks again. `is_locked` means that another transaction holds the row, and
 * nothing was claimed.
 *
 * A new fencing token is at least the time in ms, so that it grows over all lives of a key: a key that was forgotten and is
 * used again begins above every token that it had before.
 *
 * Safe under concurrency: rows are locked before they are judged, by their latest version, so exactly one of two rivals
 * moves a row to 'running', under a token that no other run has had. No row is waited for (SKIP LOCKED): a locked row
 * keeps no other operation of the batch from its worker. Only a row that is being inserted in another transaction is
 * waited for, for 200 ms; inserts go in key order, so that overlapping batches cannot deadlock.
 *
 * A statement that was held up in the network until its caller no longer waits for it claims nothing.
 *
 * An operation that is not in the ledger may have completed and been forgotten. `is_old` says that its job is at least as
 * old as what was forgotten of its queue, or that the job claims to come from the future, which makes its age unknown.
 * Nothing was claimed then, and the caller makes sure first.
 *
 * Asking twice for the same run (the first answer was lost on the way) returns the claim that it already has.
 *
 * NULL for `:repeatableMs` means forever; for `:budgetMs` and a deadline, none; for `:waitedForUntilMs` (ms since 1970 by
 * the database's clock), unknown. `:isKnown` says that each row is known to exist, or to have never existed.
 */
export const CLAIMING = `patience AS MATERIALIZED (
  SELECT
    set_config('lock_timeout', '200ms', true) AS lock_timeout,
    clock_timestamp() AS now,
    COALESCE(clock_timestamp() <= timestamptz 'epoch' + :waitedForUntilMs::float8 * interval '1 millisecond', true) AS is_waited_for,
    (SELECT forgotten_until FROM {schema}.job_queues WHERE queue = :queue) AS forgotten_until
), delivery AS (
  SELECT * FROM ${rowsOf('d', 'tenantId text', 'operationKey text', 'jobName text', 'jobId text', 'fingerprint text', 'runId text', 'deadlineAt timestamptz', 'availableMs float8', 'stepOf text', 'step text', 'trace text', 'needsRow boolean', 'beganAt timestamptz')}
), seen_delivery AS MATERIALIZED (
  SELECT a.*, seen.*, p.now, (EXTRACT(EPOCH FROM p.now) * 1000)::bigint AS first_token, p.is_waited_for, NOT :isKnown::boolean AND p.forgotten_until IS NOT NULL
    AND NOT ${isYoung('a.available_ms', 'p.forgotten_until')} AS is_old
  FROM patience p CROSS JOIN delivery a LEFT JOIN LATERAL (
    SELECT ${SEEN}, o.last_trace FROM {schema}.job_outcomes o
    WHERE o.tenant_id = a.tenant_id AND o.operation_key = a.operation_key
    LIMIT 1
  ) seen ON true
), free AS MATERIALIZED (
  ${locked('seen_delivery a', 'true')}
  WHERE a.is_waited_for AND NOT a.is_old AND a.status NOT IN ('completed', 'dead')
), taken AS (
  UPDATE {schema}.job_outcomes o SET
    status           = CASE WHEN ${IS_MINE} THEN o.status WHEN ${MUST_ASK} THEN 'in_doubt' ELSE 'running' END,
    effect           = :effect,
    fencing_token    = CASE WHEN ${IS_MINE} THEN o.fencing_token ELSE GREATEST(o.fencing_token + 1, a.first_token) END,
    attempts         = o.attempts + CASE WHEN ${IS_MINE} OR ${MUST_ASK} THEN 0 ELSE 1 END,
    run_id        = a.run_id,
    last_trace       = COALESCE(a.trace, o.last_trace),
    expires_at       = NULL,
    lease_expires_at = ${LEASE_END},
    started_at       = CASE WHEN ${IS_MINE} OR ${MUST_ASK} THEN o.started_at ELSE ${BEGAN} END,
    -- The most careful effect that any attempt declared rules.
    repeatable_until = LEAST(o.repeatable_until, ${REPEATABLE_UNTIL}),
    deadline_at      = COALESCE(o.deadline_at, ${DEADLINE}),
    -- Taking over from a worker that vanished: whether its effect happened is not known.
    doubt_since      = CASE WHEN NOT ${IS_MINE} AND (o.status = 'running' OR ${MUST_ASK})
                            THEN COALESCE(o.doubt_since, o.started_at) ELSE o.doubt_since END,
    doubted_at       = CASE WHEN NOT ${IS_MINE} AND o.status = 'running' THEN clock_timestamp() ELSE o.doubted_at END,
    reconcile_due_at = CASE WHEN o.status = 'in_doubt' OR NOT ${IS_MINE} AND ${MUST_ASK}
                            THEN COALESCE(o.reconcile_due_at, clock_timestamp()) END
  FROM free a
  WHERE o.tenant_id = a.tenant_id AND o.operation_key = a.operation_key AND ${lookedUpByKey('a.operation_key')}
    AND o.fingerprint = a.fingerprint AND o.queue = :queue
    AND (
      ${IS_MINE}
      OR (o.status = 'pending' AND ${IS_AVAILABLE})
      OR (o.status = 'retrying' AND ${IS_AVAILABLE} AND (${MAY_FOLLOW} OR :canReconcile))
      OR (o.status = 'running' AND ${IS_FREE} AND (${IS_REPEATABLE} OR :canReconcile))
      OR (o.status = 'in_doubt' AND ${IS_FREE} AND o.reconcile_due_at <= clock_timestamp() AND :canReconcile)
    )
  RETURNING ${CLAIMED}
), made AS (
  INSERT INTO {schema}.job_outcomes AS o (
    tenant_id, operation_key, origin, queue, job_name, job_id, fingerprint, status, effect, fencing_token, run_id,
    lease_expires_at, attempts, started_at, repeatable_until, deadline_at, has_own_deadline, step_of, step, last_trace
  )
  SELECT
    a.tenant_id, a.operation_key, :origin, :queue, a.job_name, a.job_id, a.fingerprint, 'running', :effect, a.first_token, a.run_id,
    ${LEASE_END}, 1, ${BEGAN}, ${REPEATABLE_UNTIL}, ${DEADLINE}, a.deadline_at IS NOT NULL, a.step_of, a.step, a.trace
  FROM seen_delivery a
  WHERE a.is_waited_for AND NOT a.is_old AND NOT a.needs_row AND a.status IS NULL
  ORDER BY a.tenant_id, a.operation_key
  ON CONFLICT (tenant_id, operation_key) DO NOTHING
  RETURNING ${CLAIMED}
), claimed AS (
  SELECT * FROM taken UNION ALL SELECT * FROM made
), answered AS (
SELECT
  a.n::integer,
  c.fencing_token AS token,
  c.attempts,
  c.failures,
  c.doubt_since,
  c.deadline_at,
  ${ms('c.deadline_at - clock_timestamp()')} AS remaining_ms,
  -- Apart, because Postgres before 17 cannot subtract from infinity.
  (EXTRACT(EPOCH FROM c.repeatable_until)::float8 - EXTRACT(EPOCH FROM clock_timestamp())::float8) * 1000 AS repeatable_ms,
  c.started_at,
  c.status = 'in_doubt' AS must_reconcile,
  ${ms('clock_timestamp() - c.doubted_at')} AS doubt_age_ms,
  c.delay_ms,
  a.is_old,
  a.status IS NOT NULL AND a.n NOT IN (SELECT n FROM free) AS is_locked,
  a.status, a.is_same_request, a.result, a.degraded, a.wait_ms, a.is_reconciling, a.seen_token, a.seen_run_id, a.seen_effect,
  a.seen_attempts, a.seen_started_at, a.lease_left_ms, a.is_past_repeating, a.last_trace
FROM seen_delivery a
LEFT JOIN claimed c ON c.operation_key = a.operation_key AND c.tenant_id = a.tenant_id
WHERE NOT ${IS_FIRST}
)` as const;

/** The columns of {@link CLAIMING}'s answer, of `patience p` and `answered r`. */
export const CLAIM_ANSWER =
  `${ms('p.now')} AS now_ms, (EXTRACT(EPOCH FROM p.now) * 1000)::bigint AS first_token, r.*` as const;

/** Claims operations: see {@link CLAIMING}. */
export const CLAIM = statement(
  'claim',
  `WITH ${CLAIMING} SELECT ${CLAIM_ANSWER} FROM patience p LEFT JOIN answered r ON true`,
  'claim',
);

/**
 * Gives back what a run has claimed without calling its handler, because the answer was lost. It finds the claim by the
 * run id and not by the token, which never reached the run. Claims that another worker has taken over since stay with it.
 *
 * One row per run, in order: whether another transaction holds the operation's row, so that it is still to be given back
 * (one locked row does not keep the others from it), and the database's time, in ms since 1970.
 */
export const GIVE_BACK = statement(
  'give_back',
  `
WITH input AS (
  SELECT * FROM ${rowsOf('a', 'tenantId text', 'operationKey text', 'runId text', 'forgetAfterMs float8')}
), unused AS (
  ${locked('input a', 'o.run_id = a.run_id AND o.lease_expires_at IS NOT NULL')}
), given_back AS (
  UPDATE {schema}.job_outcomes o SET
    status           = CASE o.status WHEN 'running' THEN 'retrying' ELSE o.status END,
    attempts         = o.attempts - CASE o.status WHEN 'running' THEN 1 ELSE 0 END,
    lease_expires_at = NULL,
    run_id        = NULL,
    -- A doubt is never forgotten.
    expires_at       = CASE WHEN o.doubt_since IS NULL
                            THEN ${inMs('u.forget_after_ms')} END
  FROM unused u
  WHERE o.tenant_id = u.tenant_id AND o.operation_key = u.operation_key AND ${lookedUpByKey('u.operation_key')}
)
SELECT
  unused.n IS NULL AND EXISTS (
    SELECT FROM {schema}.job_outcomes o
    WHERE o.tenant_id = a.tenant_id AND o.operation_key = a.operation_key
      AND o.run_id = a.run_id AND o.lease_expires_at IS NOT NULL
    OFFSET 0 -- looks it up by its key
  ) AS is_locked,
  ${ms('clock_timestamp()')} AS now_ms
FROM input a LEFT JOIN unused ON unused.n = a.n
ORDER BY a.n
`,
  'record',
);

/**
 * Peeks at operations without claiming them, for deliveries that would not be run now. One row per delivery: `status` is
 * null when the operation has no row yet.
 */
export const PEEK = statement(
  'peek',
  `
SELECT
  a.n,
  -- Whether it was forgotten is found out when it is to be run.
  false AS is_old,
  ${SEEN},
  o.doubt_since,
  ${ms('COALESCE(o.deadline_at, a.deadline_at) - clock_timestamp()')} AS remaining_ms
FROM ${rowsOf('a', 'tenantId text', 'operationKey text', 'fingerprint text', 'deadlineAt timestamptz')}
LEFT JOIN LATERAL (
  SELECT * FROM {schema}.job_outcomes o
  WHERE o.operation_key = a.operation_key AND o.tenant_id = a.tenant_id
  LIMIT 1
) o ON true
ORDER BY a.n
`,
  'claim',
);

/**
 * Begins the time budget of an operation that is kept from its first attempt. No row means that the budget has begun
 * already, that a worker runs the operation, or that it has no row: its job may then be older than the ledger's memory,
 * and must not get a row.
 */
export const BEGIN_BUDGET = statement(
  'begin_budget',
  `
UPDATE {schema}.job_outcomes o SET deadline_at = ${inMs(':budgetMs::float8')}
WHERE o.tenant_id = :tenantId AND o.operation_key = :operationKey AND o.deadline_at IS NULL AND o.status IN ('pending', 'retrying')
RETURNING true
`,
  'claim',
);
