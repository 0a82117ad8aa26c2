import { Injectable } from '@nestjs/common';
import { shownKey } from '../operation/step-key.js';
import { Database } from '../postgres/database.js';
import { statement } from '../postgres/statement.js';
import { toDate, toDateOrNone } from '../postgres/to-date.js';
import type { ErrorEvidence } from '../record/error-evidence.js';
import type { DeadLetter, DeadLetterFilter, DeadLetterGroup, DeadLetterWithPayload } from './dead-letter.js';
import type { DeadLetterResolution, DeadLetterReason } from '../operation/reasons.js';

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

const COLUMNS = `l.id, l.reason, l.error_fingerprint, l.queue, l.job_name, l.job_id, l.tenant_id, l.operation_key, l.error,
  l.attempts, l.failures, l.doubt_since, l.worker_id, l.versions, l.step_of, l.step, l.created_at, l.resolved_at, l.resolution, l.actor, l.note`;

/**
 * Newest first. Parameters: the filter; 8 open, resolved or both (null); 9, 10 the last letter of the page before (its
 * time in microseconds, its id); 11 how many. Time and id together are unique and never change, so a page never shows a
 * letter twice or leaves one out, whatever is written or resolved meanwhile.
 */
const LIST = statement(
  'list_letters',
  `
SELECT ${COLUMNS}, (EXTRACT(EPOCH FROM l.created_at) * 1000000)::bigint::text AS created_us
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
  SELECT l.error_fingerprint, l.queue, l.reason, count(*)::integer AS letters, min(l.created_at) AS oldest_at,
         max(l.created_at) AS newest_at, (array_agg(l.id ORDER BY l.created_at DESC))[1] AS sample_id
  FROM {schema}.dead_letters l
  WHERE ${MATCHES_FILTER} AND l.resolved_at IS NULL
  GROUP BY l.error_fingerprint, l.queue, l.reason
  ORDER BY letters DESC, newest_at DESC
  LIMIT $8
)
SELECT g.*, s.error AS sample_error
FROM grouped g JOIN {schema}.dead_letters s ON s.id = g.sample_id
ORDER BY g.letters DESC, g.newest_at DESC
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
    const rows = await this.database.run<LetterRow & { created_us: string }>(LIST, [
      ...filterValues(filter),
      isOpen ?? null,
      after?.createdUs ?? null,
      after?.id ?? null,
      limit,
    ]);
    const last = rows.at(-1);
    return {
      letters: rows.map(readLetter),
      last: last === undefined ? undefined : { createdUs: last.created_us, id: last.id },
    };
  }

  async groups(filter: DeadLetterFilter, limit: number): Promise<DeadLetterGroup[]> {
    const values = [...filterValues(filter), limit];
    const rows = await this.database.run<GroupRow>(GROUP, values, undefined, LONG_MS);
    return rows.map((row) => ({
      fingerprint: row.error_fingerprint,
      queue: row.queue,
      reason: row.reason,
      letters: row.letters,
      oldestAt: toDate(row.oldest_at),
      newestAt: toDate(row.newest_at),
      sample: {
        id: row.sample_id,
        error:
          row.sample_error === null
            ? undefined
            : { name: row.sample_error.name, message: row.sample_error.message },
      },
    }));
  }

  /** The payload as it is kept, which may be encrypted. */
  async get(id: string): Promise<DeadLetterWithPayload | undefined> {
    const [row] = await this.database.run<LetterRow & { payload: unknown }>(GET, [id]);
    return row === undefined ? undefined : { ...readLetter(row), payload: row.payload ?? undefined };
  }

  async findOpen(tenantId: string, operationKey: string): Promise<string | undefined> {
    const [row] = await this.database.run<{ id: string }>(FIND_OPEN, [tenantId, operationKey]);
    return row?.id;
  }
}

interface LetterRow {
  readonly id: string;
  readonly reason: DeadLetterReason;
  readonly error_fingerprint: string;
  readonly queue: string;
  readonly job_name: string;
  readonly job_id: string;
  readonly tenant_id: string | null;
  readonly operation_key: string | null;
  readonly step_of: string | null;
  readonly step: string | null;
  readonly error: ErrorEvidence | null;
  readonly attempts: number;
  readonly failures: number;
  readonly doubt_since: Date | null;
  readonly worker_id: string | null;
  readonly versions: Record<string, string> | null;
  readonly created_at: Date;
  readonly resolved_at: Date | null;
  readonly resolution: DeadLetterResolution | null;
  readonly actor: string | null;
  readonly note: string | null;
}

interface GroupRow {
  readonly error_fingerprint: string;
  readonly queue: string;
  readonly reason: DeadLetterReason;
  readonly letters: number;
  readonly oldest_at: Date;
  readonly newest_at: Date;
  readonly sample_id: string;
  readonly sample_error: ErrorEvidence | null;
}

function readLetter(row: LetterRow): DeadLetter {
  return {
    id: row.id,
    reason: row.reason,
    fingerprint: row.error_fingerprint,
    queue: row.queue,
    jobName: row.job_name,
    jobId: row.job_id,
    tenantId: row.tenant_id ?? undefined,
    operationKey: row.operation_key === null ? undefined : shownKey(row.operation_key),
    ...(row.step_of !== null && row.step !== null && { stepOf: row.step_of, step: row.step }),
    error: row.error ?? undefined,
    attempts: row.attempts,
    failures: row.failures,
    doubtSince: toDateOrNone(row.doubt_since),
    workerId: row.worker_id ?? undefined,
    versions: row.versions ?? undefined,
    createdAt: toDate(row.created_at),
    resolved:
      row.resolved_at === null
        ? undefined
        : {
            at: toDate(row.resolved_at),
            as: row.resolution as DeadLetterResolution,
            actor: row.actor as string,
            note: row.note as string,
          },
  };
}
