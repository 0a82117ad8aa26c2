import { definedOf } from '../../option-checks/option-checks.js';
import { isOverWithin, within } from '../../operation/within.js';
import {
  LEDGER_TYPES,
  type ConnectionPool,
  type PooledConnection,
  type Query,
  type QueryResult,
  listenForErrors,
} from './connection.js';
import { type Lane, LANES, Places } from './lanes.js';
import { NoAnswerError, NoConnectionError, namedFailure } from './no-connection.js';

/** How the library's own connections differ from the application's. */
export interface LedgerPoolOptions {
  /** The most connections. */
  readonly max: number;
  /** Connection options of pg that override those of the DataSource. */
  readonly connection: Readonly<Record<string, unknown>>;
}

/**
 * How long to wait for the answer to a statement; after that, the connection is destroyed. A connection that died silently
 * would otherwise keep its place in the pool, and its waiting caller, for ever.
 */
export const QUERY_TIMEOUT_MS = 10_000;

/** Postgres gives up before the client does, so that a statement that the client has given up cannot take effect later. */
export const STATEMENT_TIMEOUT_MS = 9_000;

/**
 * How long a statement waits for a lock. Statements for many operations wait for no row (SKIP LOCKED). A statement that
 * must wait for a single row, or for a table, is retried by its caller, which leaves the connection to others meanwhile.
 */
const LOCK_TIMEOUT_MS = 1_000;

/**
 * Settings of the library's sessions, whatever the defaults of role, database and server are. A session that is left in an
 * open transaction ends after 15 s; one whose client has vanished is noticed within a minute.
 *
 * Every statement of the library uses an index. A plan that was made while a table was empty, and is kept, must not scan
 * all of the table after a burst has filled it.
 */
const SESSION = `
SET default_transaction_isolation = 'read committed';
SET default_transaction_read_only = off;
SET default_transaction_deferrable = off;
SET statement_timeout = ${STATEMENT_TIMEOUT_MS};
SET lock_timeout = ${LOCK_TIMEOUT_MS};
SET idle_in_transaction_session_timeout = 15000;
SET tcp_keepalives_idle = 30;
SET tcp_keepalives_interval = 10;
SET tcp_keepalives_count = 3;
SET DateStyle = ISO;
SET extra_float_digits = 1;
SET enable_seqscan = off;
SET jit = off;
SELECT pg_backend_pid() AS pid`;

/** A borrowed connection. One that is released with an error is closed. */
export interface LedgerConnection {
  query(query: Query): Promise<QueryResult>;
  release(error?: Error): void;
}

/**
 * The library's own connections: few, with their own limits on the server, isolation level and types, so that neither the
 * application's settings nor its load affect the statements that keep leases. They are made by the class and from the
 * options of the DataSource's pool, so that they lead to the same database as the same role.
 */
export class LedgerPool {
  /** The connections themselves, without the lanes that order access to them. */
  readonly pool: ConnectionPool;
  readonly #places: Places<Lane>;
  /** The server process behind each healthy connection. A pooler in between reports another number to the client. */
  readonly #pids = new WeakMap<PooledConnection, number>();

  constructor(template: ConnectionPool, { max, connection }: LedgerPoolOptions) {
    // pg makes the password non-enumerable, so a spread does not copy it.
    const { password, application_name: name } = template.options as {
      password?: unknown;
      application_name?: unknown;
    };
    const Pool = template.constructor as new (options: object) => ConnectionPool;
    this.pool = new Pool({
      keepAlive: true,
      ...definedOf(template.options),
      password,
      application_name: typeof name === 'string' ? `${name} (jobs)` : 'nestjs-idempotent-jobs',
      ...leadingTo(connection, template.options),
      max,
      min: 0,
      // The library's own limits override those of the DataSource.
      connectionTimeoutMillis: QUERY_TIMEOUT_MS,
      query_timeout: false,
      binary: false,
      pipeline: false,
    });
    listenForErrors(this.pool);
    this.#places = new Places(max, LANES);
  }

  /** The class and options for a connection outside of the pool. */
  get client(): { readonly Client: ConnectionPool['Client']; readonly options: object } {
    const { Client, options } = this.pool;
    return { Client, options: { ...options, password: (options as { password?: unknown }).password } };
  }

  /** Runs one statement. `query` is called once there is a connection. */
  async run(query: () => Query, lane: Lane): Promise<QueryResult> {
    const connection = await this.connect(lane);
    let broken: Error | undefined;
    try {
      return await connection.query(query());
    } catch (error) {
      if (error instanceof NoAnswerError) broken = error;
      throw error;
    } finally {
      connection.release(broken);
    }
  }

  /** Lends a connection. @throws NoConnectionError if none is free in time */
  async connect(lane: Lane): Promise<LedgerConnection> {
    const leave = await this.#places.take(lane, QUERY_TIMEOUT_MS);
    if (leave === undefined)
      throw new NoConnectionError(
        `All of the library's connections that may be used for this are busy, and none was free within ${QUERY_TIMEOUT_MS} ms.`,
      );
    try {
      const connection = await this.pool.connect();
      try {
        await this.#putInOrder(connection);
      } catch (error) {
        connection.release(error as Error);
        throw error;
      }
      return this.#lend(connection, leave);
    } catch (error) {
      leave();
      throw namedFailure(error);
    }
  }

  async end(): Promise<void> {
    await isOverWithin(CLOSE_MS, this.pool.end());
  }

  async #putInOrder(connection: PooledConnection): Promise<void> {
    if (this.#pids.has(connection)) return;
    const results = (await answered(
      connection.query({ text: SESSION, types: LEDGER_TYPES }),
      QUERY_TIMEOUT_MS,
    )) as unknown as QueryResult[];
    const [{ pid }] = (results.at(-1) as QueryResult).rows as [{ pid: number }];
    this.#pids.set(connection, pid);
  }

  #lend(connection: PooledConnection, leave: () => void): LedgerConnection {
    return {
      query: (query) => this.#ask(connection, query),
      release: (error) => {
        connection.release(error);
        leave();
      },
    };
  }

  async #ask(
    connection: PooledConnection,
    { timeoutMs = QUERY_TIMEOUT_MS, ...query }: Query,
  ): Promise<QueryResult> {
    try {
      return await answered(connection.query({ ...query, types: LEDGER_TYPES }), timeoutMs);
    } catch (error) {
      if (error instanceof NoAnswerError) this.#cancel(connection);
      throw namedFailure(error);
    }
  }

  /**
   * Cancels on the server what the client has given up, so that it does not take effect later, if Postgres can be reached.
   */
  #cancel(connection: PooledConnection): void {
    const query = { text: 'SELECT pg_cancel_backend($1)', values: [this.#pids.get(connection)] };
    void this.run(() => query, 'lease').catch(() => undefined);
  }
}

/** Statements under way end within their own limit; closing does not wait longer than this. */
const CLOSE_MS = 5_000;

/** The result of the work, if it ends within `ms`. The work itself is not stopped. @throws NoAnswerError */
export function answered<T>(work: Promise<T>, ms: number): Promise<T> {
  return within(ms, work, () => new NoAnswerError(ms));
}

/** Writes the given address into the DataSource's URL, because pg prefers an address in a URL over any other option. */
function leadingTo(
  connection: Readonly<Record<string, unknown>>,
  { connectionString }: { readonly connectionString?: unknown },
): Readonly<Record<string, unknown>> {
  if (typeof connectionString !== 'string' || connection['connectionString'] !== undefined) return connection;
  const { host, port, user, password, database, ...others } = connection as Address;
  const url = new URL(connectionString);
  if (host !== undefined) url.hostname = host;
  if (port !== undefined) url.port = `${port}`;
  if (user !== undefined) url.username = encodeURIComponent(user);
  if (typeof password === 'string') url.password = encodeURIComponent(password);
  if (database !== undefined) url.pathname = `/${encodeURIComponent(database)}`;
  return { ...others, connectionString: url.toString() };
}

/** pg's names for where a connection leads. */
interface Address {
  readonly host?: string;
  readonly port?: number | string;
  readonly user?: string;
  readonly password?: unknown;
  readonly database?: string;
}
