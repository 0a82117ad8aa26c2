import { Injectable } from '@nestjs/common';
import type { Author } from '../operation/ledger-action.js';
import { Database, type Queryable } from '../ledger/postgres/database.js';
import { sqlStateOf, UNIQUE_VIOLATION } from '../ledger/postgres/no-connection.js';
import type { DeadLetterFilter } from './dead-letter.js';
import { filterInput, LONG_MS, MATCHES_FILTER } from './letter.queries.js';
import type { Redrive, RedrivePace } from './bulk-redrive.js';
import { inMs, statement } from '../ledger/postgres/statement.js';
import { INTO_AUDIT } from '../ledger/record/audit.js';

/**
 * Letters that can be redriven as they are: they have their own identity, and their effect is known not to have happened.
 */
const REDRIVABLE = `l.resolved_at IS NULL AND l.tenant_id IS NOT NULL AND l.reason NOT IN ('idempotency_conflict', 'in_doubt', 'expired')`;

/** Counts open letters that match, by whether they can be redriven as they are. */
const COUNT_REDRIVABLE = statement(
  'count_redrivable',
  `
SELECT count(*) FILTER (WHERE ${REDRIVABLE})::integer AS redrivable,
       count(*) FILTER (WHERE NOT (${REDRIVABLE}))::integer AS others
FROM {schema}.dead_letters l
WHERE ${MATCHES_FILTER} AND l.resolved_at IS NULL
`,
);

/**
 * Starts a bulk redrive: takes on the letters that match now, and no later ones, so that it ends. *No row*: no letter
 * matches. Fails on dead_letter_redrives_one_per_queue while another redrive of the queue is running; so no letter is
 * ever in two redrives.
 */
const START_REDRIVE = statement(
  'start_redrive',
  `
WITH chosen AS (
  SELECT l.id FROM {schema}.dead_letters l WHERE ${MATCHES_FILTER} AND ${REDRIVABLE}
  -- As all do who lock several letters, so that they wait for each other and never in a circle.
  ORDER BY l.id FOR UPDATE OF l
), started AS (
  INSERT INTO {schema}.dead_letter_redrives (queue, filter, actor, note, rate_per_second, canary, max_failure_share, letters)
  SELECT :queue, :filter::json, :actor, :note, :ratePerSecond, :canary, :maxFailureShare, (SELECT count(*) FROM chosen)
  WHERE EXISTS (SELECT FROM chosen)
  RETURNING id, letters
), taken_on AS (
  UPDATE {schema}.dead_letters l SET redrive_id = s.id FROM chosen c, started s WHERE l.id = c.id
), audited AS (
  ${INTO_AUDIT}
  SELECT 'redrive_many', :actor, :note, id, :queue, NULL, NULL, NULL, json_build_object('filter', :filter::json, 'letters', letters)
  FROM started
)
SELECT id FROM started
`,
);

/**
 * Takes a running redrive that no process runs: a new one, or one whose process has died. SKIP LOCKED: of two processes
 * only one gets it.
 */
const TAKE_REDRIVE = statement(
  'take_redrive',
  `
UPDATE {schema}.dead_letter_redrives r
SET runner_id = :runnerId, lease_expires_at = ${inMs(':leaseMs::float8')}
WHERE r.id = (
  SELECT id FROM {schema}.dead_letter_redrives
  WHERE status = 'running' AND (lease_expires_at IS NULL OR lease_expires_at <= clock_timestamp())
  ORDER BY created_at LIMIT 1 FOR UPDATE SKIP LOCKED
)
RETURNING r.id, r.queue, json_build_object(
  'ratePerSecond', r.rate_per_second, 'canary', r.canary, 'maxFailureShare', r.max_failure_share) AS pace
`,
);

/** Renews the lease of a redrive. *No row*: it has ended, or another process has it. */
const KEEP_REDRIVE = statement(
  'keep_redrive',
  `
UPDATE {schema}.dead_letter_redrives
SET lease_expires_at = ${inMs(':leaseMs::float8')}
WHERE id = :redriveId AND runner_id = :runnerId AND status = 'running'
RETURNING id
`,
);

/** Releases the redrive, so that another process can go on at once. */
const LEAVE_REDRIVE = statement(
  'leave_redrive',
  `UPDATE {schema}.dead_letter_redrives SET lease_expires_at = NULL WHERE id = :redriveId AND runner_id = :runnerId AND status = 'running'`,
);

/**
 * The progress of redrives, newest first. An operation that was later redriven by another letter has left this redrive,
 * and counts as ended.
 */
const REDRIVE_STATES = statement(
  'redrive_states',
  `
SELECT r.id, r.queue, r.status, r.ended_because, r.filter, r.actor, r.note, r.letters, p.progress, r.created_at, r.ended_at
FROM (
  SELECT * FROM {schema}.dead_letter_redrives
  WHERE (:ids::uuid[] IS NULL OR id = ANY (:ids)) AND (:queue::text IS NULL OR queue = :queue)
    AND (:tenantId::text IS NULL OR filter->>'tenantId' = :tenantId)
  ORDER BY created_at DESC LIMIT :limit
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

/** The next letters of a redrive, oldest first. */
const NEXT_LETTERS = statement(
  'next_letters',
  `
SELECT id
FROM {schema}.dead_letters
WHERE redrive_id = :redriveId AND resolved_at IS NULL
ORDER BY created_at, id
LIMIT :limit
`,
);

/** Ends a running redrive, with an audit row. *No row*: it was not running, or another runner has it. */
const END_REDRIVE = statement(
  'end_redrive',
  `
WITH ended AS (
  UPDATE {schema}.dead_letter_redrives
  SET status = :status, ended_because = :because, ended_at = clock_timestamp(), lease_expires_at = NULL
  WHERE id = :redriveId AND status = 'running' AND (:runnerId::text IS NULL OR runner_id = :runnerId)
  RETURNING *
), audited AS (
  ${INTO_AUDIT}
  SELECT :action, COALESCE(:actor, actor), COALESCE(:note, :because, note), id, queue, NULL, NULL, NULL, NULL FROM ended
)
SELECT id FROM ended
`,
);

/** A bulk redrive, as its runner holds it. */
export interface ReservedRedrive {
  readonly id: string;
  readonly queue: string;
  readonly runnerId: string;
  readonly pace: RedrivePace;
}

/** Reads and writes the rows of bulk redrives. */
@Injectable()
export class BulkRedriveStore {
  constructor(private readonly database: Database) {}

  async count(filter: DeadLetterFilter): Promise<{ redrivable: number; others: number }> {
    const [row] = await this.database.run<{ redrivable: number; others: number }>(
      COUNT_REDRIVABLE.with(filterInput(filter)),
      undefined,
      LONG_MS,
    );
    return row as { redrivable: number; others: number };
  }

  /** Starts a bulk redrive. Returns its id, or why it did not start: another one is running, or nothing matches. */
  async start(
    filter: DeadLetterFilter,
    pace: RedrivePace,
    author: Author,
  ): Promise<{ readonly id: string } | 'running' | 'nothing'> {
    const { queue: _queue, ...conditions } = filter;
    const call = START_REDRIVE.with({
      ...filterInput(filter),
      ...author,
      ...pace,
      filter: JSON.stringify(conditions),
    });
    try {
      const [row] = await this.database.run<{ id: string }>(call, undefined, LONG_MS);
      return row ?? 'nothing';
    } catch (error) {
      if (sqlStateOf(error) === UNIQUE_VIOLATION) return 'running';
      throw error;
    }
  }

  async take(runnerId: string, leaseMs: number): Promise<ReservedRedrive | undefined> {
    const [row] = await this.database.run<Omit<ReservedRedrive, 'runnerId'>>(
      TAKE_REDRIVE.with({ runnerId, leaseMs }),
    );
    return row && { ...row, runnerId };
  }

  /** Renews the lease. Returns false when the redrive is no longer this runner's. */
  async keep({ id, runnerId }: ReservedRedrive, leaseMs: number): Promise<boolean> {
    return (await this.database.run(KEEP_REDRIVE.with({ redriveId: id, runnerId, leaseMs }))).length > 0;
  }

  async leave({ id, runnerId }: ReservedRedrive): Promise<void> {
    await this.database.run(LEAVE_REDRIVE.with({ redriveId: id, runnerId }));
  }

  async nextLetters(redriveId: string, limit: number): Promise<string[]> {
    const rows = await this.database.run<{ id: string }>(NEXT_LETTERS.with({ redriveId, limit }));
    return rows.map(({ id }) => id);
  }

  /** Ends a running redrive. Returns false when it was not running. Without an author its runner ends it. */
  async end(
    id: string,
    status: 'completed' | 'stopped' | 'cancelled',
    because: string | undefined,
    by: { readonly author: Author } | { readonly runnerId: string },
    on?: Queryable,
  ): Promise<boolean> {
    const author = 'author' in by ? by.author : undefined;
    const rows = await this.database.run(
      END_REDRIVE.with({
        redriveId: id,
        status,
        because,
        actor: author?.actor,
        note: author?.note,
        action: `redrive_${status}`,
        runnerId: 'runnerId' in by ? by.runnerId : null,
      }),
      on,
    );
    return rows.length > 0;
  }

  /** With `tenantId`, finds it only if it is limited to that tenant. */
  async get(id: string, tenantId?: string): Promise<Redrive | undefined> {
    const call = REDRIVE_STATES.with({ ids: [id], queue: null, tenantId, limit: 1 });
    return (await this.database.read<Redrive>(call, undefined, LONG_MS))[0];
  }

  list(queue: string | undefined, tenantId: string | undefined, limit: number): Promise<Redrive[]> {
    const call = REDRIVE_STATES.with({ ids: null, queue, tenantId, limit });
    return this.database.read(call, undefined, LONG_MS);
  }
}
