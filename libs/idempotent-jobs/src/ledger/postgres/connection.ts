import type { TypeParsers } from './ledger-types.js';

/*
 * The parts of pg that the library needs. Its own words instead of pg's types, which applications without `@types/pg` do
 * not have.
 */

/** A statement on its way. */
export interface Query {
  /** Of a prepared statement; undefined: it is not prepared. */
  readonly name?: string;
  readonly text: string;
  readonly values?: unknown[];
  /** How long an answer is waited for, in ms. Default 10,000. */
  readonly timeoutMs?: number;
}

/** What Postgres answers. */
export interface QueryResult {
  readonly rows: any[];
  readonly rowCount: number | null;
}

/** What statements can be run on: a transaction's connection, or a pool. */
export interface Queryable {
  query(query: Query): Promise<QueryResult>;
}

/** A connection as pg has it. */
export interface PgConnection {
  query(query: {
    name?: string;
    text: string;
    values?: unknown[];
    types?: TypeParsers;
  }): Promise<QueryResult>;
}

/** A pg Pool. */
export interface ConnectionPool {
  readonly options: { readonly max: number; readonly connectionString?: string };
  readonly Client: new (options: object) => any;
  connect(): Promise<PooledConnection>;
  end(): Promise<void>;
  on(event: 'connect' | 'acquire', listener: (connection: PooledConnection) => void): unknown;
  on(event: 'error', listener: (error: Error) => void): unknown;
}

/** A connection of a {@link ConnectionPool}. Released with an error, it is closed. */
export interface PooledConnection extends PgConnection {
  /** The server's process, as whoever made the connection was told: by a pooler, another number. */
  readonly processID?: number | null;
  release(error?: Error): void;
  on(event: 'error', listener: (error: Error) => void): unknown;
}
