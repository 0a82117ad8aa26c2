import { Injectable } from '@nestjs/common';
import { shownKey } from '../operation/step-key.js';
import { Database } from '../ledger/postgres/database.js';
import { statement } from '../ledger/postgres/statement.js';
import { toDate } from '../ledger/postgres/to-date.js';
import type { DeadLetter, DeadLetterFilter, DeadLetterGroup, DeadLetterWithPayload } from './dead-letter.js';

/** A {@link DeadLetterFilter} as SQL. Parameters 1 to 7 as {@link filterValues} gives them. */
export const MATCHES_FILTER = `
      ($1::text IS NULL OR l.queue = $1)
  AND ($2::text IS NULL OR l.tenant_id = $2)
  AND ($3::text IS NULL OR l.reason = $3)
  AND ($4::text IS NULL OR l.error_fingerprint = $4)
  AND ($5::text IS NULL OR l.operation_key = $5 OR l.step_of = $5)
  AND ($6::timestamptz IS NULL OR l.created_at >= $6)
  AND ($7::timestamptz IS NULL OR l.created_at < $7)`;

export function filterValues(filter: DeadLetterFilter): unknown[] {
  const { queue, tenantId, reason, fingerprint, operationKey, from, until } = filter;
  return [queue, tenantId, reason, fingerprint, operationKey, from, until].map((value) => value ?? null);
}

/** A letter as it is shown, save for what is not there. */
const COLUMNS = `l.id, l.reason, l.error_fingerprint AS fingerprint, l.queue, l.job_name AS "jobName", l.job_id AS "jobId",
  l.tenant_id AS "tenantId", l.operation_key AS "operationKey", l.step_of AS "stepOf", l.step, l.error, l.attempts, l.failures,
  l.doubt_since AS "doubtSince", l.run_id AS "runId", l.versions, l.created_at AS "createdAt",
  CASE WHEN l.resolved_at IS NOT NULL THEN json_build_object(
    'at', l.resolved_at, 'as', l.resolution, 'actor', l.actor, 'note', l.note) END AS resolved`;

/**
 * Newest first. Parameters: the filter; 8 open, resolved or both (null); 9, 10 the last letter of the page before (its
 * time in microseconds, its id); 11 how many. Time and id together are unique and never change, so a page never shows a
 * letter twice or leaves one out, whatever is written or resolved meanwhile.
 */
const LIST = statement(
  'list_letters',
  `
SELECT ${COLUMNS}, (EXTRACT(EPOCH FROM l.created_at) * 1000000)::bigint::text AS "createdUs"
FROM {schema}.dead_letters l
WHERE ${MATCHES_FILTER}
  AND ($8::boolean IS NULL OR (l.resolved_at IS NULL) = $8)
  AND ($9::bigint IS NULL OR (l.created_at, l.id) < (timestamptz 'epoch' + $9 * interval '1 microsecond', $10::uuid))
ORDER BY l.created_at DESC, l.id DESC
LIMIT $11
`,
);

/** Open letters by cause, the largest group first. Parameters: the filter; 8 how many groups. */
const GROUP = statement(
  'group_letters',
  `
WITH grouped AS (
  SELECT l.error_fingerprint AS fingerprint, l.queue, l.reason, count(*)::integer AS letters,
         min(l.created_at) AS "oldestAt", max(l.created_at) AS "newestAt", (array_agg(l.id ORDER BY l.created_at DESC))[1] AS sample_id
  FROM {schema}.dead_letters l
  WHERE ${MATCHES_FILTER} AND l.resolved_at IS NULL
  GROUP BY l.error_fingerprint, l.queue, l.reason
  ORDER BY letters DESC, "newestAt" DESC
  LIMIT $8
)
SELECT g.fingerprint, g.queue, g.reason, g.letters, g."oldestAt", g."newestAt", json_build_object('id', s.id, 'error',
  CASE WHEN s.error IS NOT NULL THEN json_build_object('name', s.error->'name', 'message', s.error->'message') END) AS sample
FROM grouped g JOIN {schema}.dead_letters s ON s.id = g.sample_id
ORDER BY g.letters DESC, g."newestAt" DESC
`,
);

const GET = statement(
  'get_letter',
  `SELECT ${COLUMNS}, l.payload FROM {schema}.dead_letters l WHERE l.id = $1`,
);

/** The open letter of an operation; where a conflicting or an expired request has one too, the operation's own. */
const FIND_OPEN = statement(
  'find_open_letter',
  `
SELECT l.id FROM {schema}.dead_letters l
WHERE l.tenant_id = $1 AND l.operation_key = $2 AND l.resolved_at IS NULL
ORDER BY l.reason IN ('idempotency_conflict', 'expired'), l.created_at
LIMIT 1
`,
);

/** For what reads or takes on as many letters as there are. */
export const LONG_MS = 5 * 60 * 1000;

/** Where a page of letters ended: the next begins after it. */
export interface LetterPosition {
  readonly createdUs: string;
  readonly id: string;
}

/** Reads dead letters for people. */
@Injectable()
export class LetterQueries {
  constructor(private readonly database: Database) {}

  async list(
    filter: DeadLetterFilter,
    isOpen: boolean | undefined,
    after: LetterPosition | undefined,
    limit: number,
  ): Promise<{ letters: DeadLetter[]; last: LetterPosition | undefined }> {
    const rows = await this.database.run<{ id: string; createdUs: string }>(LIST, [
      ...filterValues(filter),
      isOpen ?? null,
      after?.createdUs ?? null,
      after?.id ?? null,
      limit,
    ]);
    return { letters: rows.map(readLetter), last: rows.at(-1) };
  }

  async groups(filter: DeadLetterFilter, limit: number): Promise<DeadLetterGroup[]> {
    const values = [...filterValues(filter), limit];
    const rows = await this.database.run<GroupRow>(GROUP, values, undefined, LONG_MS);
    return rows.map(({ sample, ...group }) => {
      return { ...group, sample: { ...sample, error: sample.error ?? undefined } };
    });
  }

  /** The payload as it is kept, which may be encrypted. */
  async get(id: string): Promise<DeadLetterWithPayload | undefined> {
    const [row] = await this.database.run<object>(GET, [id]);
    return row && readLetter(row);
  }

  async findOpen(tenantId: string, operationKey: string): Promise<string | undefined> {
    const [row] = await this.database.run<{ id: string }>(FIND_OPEN, [tenantId, operationKey]);
    return row?.id;
  }
}

type GroupRow = DeadLetterGroup & {
  readonly sample: { readonly id: string; readonly error: DeadLetterGroup['sample']['error'] | null };
};

/** Of a row with {@link COLUMNS}, and perhaps the payload or its place among the pages, which is not shown. */
function readLetter(row: object): DeadLetterWithPayload {
  const shown = Object.entries(row).filter(([name]) => name !== 'createdUs');
  const facts = shown.map(([name, value]: [string, unknown]) => [name, value ?? undefined]);
  const letter = Object.fromEntries(facts) as DeadLetterWithPayload;
  const { operationKey, resolved } = letter;
  return {
    ...letter,
    operationKey: operationKey && shownKey(operationKey),
    resolved: resolved && { ...resolved, at: toDate(resolved.at) },
  };
}
