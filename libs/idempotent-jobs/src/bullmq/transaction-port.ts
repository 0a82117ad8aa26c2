import type { PostgresQueueBackend as PostgresBackend, Queue } from 'bullmq';
import type { Queryable } from '../ledger/postgres/database.js';
import { quoted } from '../ledger/postgres/sql.js';
import { PostgresQueueBackend } from './backend.js';

/** What BullMQ's Postgres backend needs of its connection to add jobs. */
interface BackendConnection {
  readonly schema: string;
  readonly pool: { query(text: string, values: unknown[]): Promise<{ rows: any[] }> };
  readonly isClosing: undefined;
  waitUntilReady(): Promise<void>;
}

/** The parts of the Postgres backend that its types hide. */
interface PostgresBackendParts {
  readonly connection: BackendConnection;
  readonly opts: unknown;
}

type MakeBackend = new (
  connection: BackendConnection,
  queue: string,
  opts: unknown,
  ownsConnection: boolean,
) => PostgresBackend;

/** BullMQ's own pool and schema for a queue in Postgres. Undefined when the queue is not in Postgres. */
export function postgresOf(queue: Queue): { pool: BackendConnection['pool']; schema: string } | undefined {
  if (PostgresQueueBackend === undefined) return undefined;
  const backend = queue.getBackend() as unknown;
  if (!(backend instanceof PostgresQueueBackend)) return undefined;
  return (backend as unknown as PostgresBackendParts).connection;
}

/**
 * Lends a Postgres queue the connection of a transaction: jobs that `work` adds to the queue it gets are there if and
 * only if the transaction commits.
 *
 * BullMQ's functions are found through `search_path`, which its own connections set to its schema. Here the schema is
 * appended to the transaction's `search_path` and removed afterwards, so the application's names never change their
 * meaning.
 */
export async function withQueueInTransaction<T>(
  queue: Queue,
  connection: Queryable,
  work: (queue: Queue) => Promise<T>,
): Promise<T> {
  const { opts, connection: own } = queue.getBackend() as unknown as PostgresBackendParts;
  const borrowed: BackendConnection = {
    schema: own.schema,
    pool: { query: (text, values) => connection.query({ text, values }) },
    isClosing: undefined,
    waitUntilReady: () => Promise.resolve(),
  };
  const backend = new (PostgresQueueBackend as unknown as MakeBackend)(borrowed, queue.name, opts, false);
  const inTransaction = Object.create(queue, {
    backend: { value: backend },
    // Listeners must not be told of jobs that are not committed yet.
    emit: { value: () => true },
  }) as Queue;

  const { rows } = await connection.query({
    text: APPEND_TO_SEARCH_PATH,
    values: [quoted(own.schema)],
  });
  const result = await work(inTransaction);
  await connection.query({ text: SET_SEARCH_PATH, values: [(rows[0] as { before: string }).before] });
  return result;
}

/** OFFSET 0 keeps the subquery from being merged, so that the old value is read before the new one is set. */
const APPEND_TO_SEARCH_PATH = `
SELECT before, set_config('search_path', CASE before WHEN '' THEN $1 ELSE before || ', ' || $1 END, true)
FROM (SELECT current_setting('search_path') AS before OFFSET 0) AS path`;

const SET_SEARCH_PATH = `SELECT set_config('search_path', $1, true)`;
