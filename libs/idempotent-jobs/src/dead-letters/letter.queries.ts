import { Injectable } from '@nestjs/common';
import { shownKey } from '../operation/origin.js';
import { Database } from '../ledger/postgres/database.js';
import { statement } from '../ledger/postgres/statement.js';
import type { DeadLetterMessage } from '../operation/dead-letter-message.js';
import type {
  DeadLetter,
  DeadLetterFilter,
  DeadLetterGroup,
  DeadLetterWithPayload,
  DeadLetterPage,
} from './dead-letter.js';
import { type LetterPosition, writeCursor } from './letter-arguments.js';

/** A {@link DeadLetterFilter} as SQL. Null matches everything. */
export const MATCHES_FILTER = `
      (:queue::text IS NULL OR l.queue = :queue)
  AND (:tenantId::text IS NULL OR l.tenant_id = :tenantId)
  AND (:reason::text IS NULL OR l.reason = :reason)
  AND (:fingerprint::text IS NULL OR l.error_fingerprint = :fingerprint)
  AND (:operationKey::text IS NULL OR l.operation_key = :operationKey OR l.step_of = :operationKey)
  AND (:from::timestamptz IS NULL OR l.created_at >= :from)
  AND (:until::timestamptz IS NULL OR l.created_at < :until)`;

/** The parameters of {@link MATCHES_FILTER}. An undefined field matches everything. */
export function filterInput(filter: DeadLetterFilter): Record<keyof DeadLetterFilter, unknown> {
  const { queue, tenantId, reason, fingerprint, operationKey, from, until } = filter;
  return { queue, tenantId, reason, fingerprint, operationKey, from, until };
}

/** The columns of a letter as it is shown, see {@link readLetter}. */
const LETTER = `l.id, l.reason, l.error_fingerprint AS fingerprint, l.queue, l.job_name, l.job_id, l.tenant_id, l.operation_key,
  l.step_of, l.step, l.error, l.attempts, l.failures, l.doubt_since, l.run_id, l.versions, l.created_at,
  CASE WHEN l.resolved_at IS NOT NULL THEN json_build_object(
    'at', l.resolved_at, 'as', l.resolution, 'actor', l.actor, 'note', l.note) END AS resolved`;

/**
 * Newest first. Time and id together are unique and never change, so a page never repeats or skips a letter, whatever
 * other transactions write or resolve in the meantime.
 */
const LIST = statement(
  'list_letters',
  `
SELECT ${LETTER}, (EXTRACT(EPOCH FROM l.created_at) * 1000000)::bigint::text AS created_us
FROM {schema}.dead_letters l
WHERE ${MATCHES_FILTER}
  AND (:isOpen::boolean IS NULL OR (l.resolved_at IS NULL) = :isOpen)
  AND (:afterUs::bigint IS NULL OR (l.created_at, l.id) < (timestamptz 'epoch' + :afterUs * interval '1 microsecond', :afterId::uuid))
ORDER BY l.created_at DESC, l.id DESC
LIMIT :limit
`,
);

/** Open letters by cause, the largest group first. */
const GROUP = statement(
  'group_letters',
  `
WITH grouped AS (
  SELECT l.error_fingerprint AS fingerprint, l.queue, l.reason, count(*)::integer AS letters,
         min(l.created_at) AS oldest_at, max(l.created_at) AS newest_at, (array_agg(l.id ORDER BY l.created_at DESC))[1] AS sample_id
  FROM {schema}.dead_letters l
  WHERE ${MATCHES_FILTER} AND l.resolved_at IS NULL
  GROUP BY l.error_fingerprint, l.queue, l.reason
  ORDER BY letters DESC, newest_at DESC
  LIMIT :limit
)
SELECT g.fingerprint, g.queue, g.reason, g.letters, g.oldest_at, g.newest_at, json_strip_nulls(json_build_object('id', s.id, 'error',
  CASE WHEN s.error IS NOT NULL THEN json_build_object('name', s.error->'name', 'message', s.error->'message') END)) AS sample
FROM grouped g JOIN {schema}.dead_letters s ON s.id = g.sample_id
ORDER BY g.letters DESC, g.newest_at DESC
`,
);

const GET = statement(
  'get_letter',
  `SELECT ${LETTER}, l.payload FROM {schema}.dead_letters l WHERE l.id = :letterId`,
);

/**
 * Finds the open letter of an operation. A conflicting or expired request may have one under the same key; the
 * operation's own goes first.
 */
const FIND_OPEN = statement(
  'find_open_letter',
  `
SELECT l.id FROM {schema}.dead_letters l
WHERE l.tenant_id = :tenantId AND l.operation_key = :operationKey AND l.resolved_at IS NULL
ORDER BY l.reason IN ('idempotency_conflict', 'expired'), l.created_at
LIMIT 1
`,
);

/** The time limit, in ms, for statements that read or take on any number of letters. */
export const LONG_MS = 5 * 60 * 1000;

/** Reads dead letters for the operator. */
@Injectable()
export class LetterQueries {
  constructor(private readonly database: Database) {}

  /** With `isOpen` undefined, lists open and resolved ones. */
  async list(
    filter: DeadLetterFilter,
    isOpen: boolean | undefined,
    after: LetterPosition | undefined,
    limit: number,
  ): Promise<DeadLetterPage> {
    const rows = await this.database.read<DeadLetter & LetterPosition>(
      LIST.with({ ...filterInput(filter), isOpen, afterUs: after?.createdUs, afterId: after?.id, limit }),
    );
    const last = rows.length < limit ? undefined : rows.at(-1);
    const letters = rows.map(({ createdUs: _position, ...letter }) => readLetter(letter));
    return { letters, next: last && writeCursor(last) };
  }

  groups(filter: DeadLetterFilter, limit: number): Promise<DeadLetterGroup[]> {
    return this.database.read(GROUP.with({ ...filterInput(filter), limit }), undefined, LONG_MS);
  }

  /** The payload is as it is stored, which may be encrypted. Undefined when there is no such letter. */
  async get(id: string): Promise<DeadLetterWithPayload | undefined> {
    const [row] = await this.database.read<DeadLetterWithPayload>(GET.with({ letterId: id }));
    return row && readLetter(row);
  }

  async findOpen(tenantId: string, operationKey: string): Promise<string | undefined> {
    const [row] = await this.database.run<{ id: string }>(FIND_OPEN.with({ tenantId, operationKey }));
    return row?.id;
  }
}

/** Reads a row with the columns of {@link LETTER}. */
function readLetter<Row extends DeadLetter>(row: Row): Row {
  const { operationKey, resolved } = row;
  return {
    ...row,
    operationKey: operationKey && shownKey(operationKey),
    resolved: resolved && { ...resolved, at: new Date(resolved.at) },
  };
}

/** A letter as it is announced, with its payload as it is given here. */
export function messageOfLetter({
  error,
  stepOf,
  step,
  ...letter
}: DeadLetterWithPayload): DeadLetterMessage {
  return {
    letterId: letter.id,
    reason: letter.reason,
    queue: letter.queue,
    jobName: letter.jobName,
    jobId: letter.jobId,
    tenantId: letter.tenantId ?? null,
    operationKey: letter.operationKey ?? null,
    ...(stepOf !== undefined && step !== undefined && { stepOf, step }),
    attempts: letter.attempts,
    error: error === undefined ? null : { name: error.name, message: error.message },
    payload: letter.payload ?? null,
    createdAt: letter.createdAt.toISOString(),
  };
}
