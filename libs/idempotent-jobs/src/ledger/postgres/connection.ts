import type { TypeParsers } from './ledger-types.js';

/*
 * The parts of pg that the library needs. They are declared here because applications without `@types/pg` do not have pg's
 * types.
 */

/** A statement to be run. */
export interface Query {
  /** The name of a prepared statement. Undefined when it is not prepared. */
  readonly name?: string;
  readonly text: string;
  readonly values?: unknown[];
  /** How long to wait for the answer, in ms. Default 10,000. */
  readonly timeoutMs?: number;
}

/** What Postgres answers. */
export interface QueryResult {
  readonly rows: any[];
  readonly rowCount: number | null;
}

/** What can run statements: a transaction's connection, or a pool. */
export interface Queryable {
  query(query: Query): Promise<QueryResult>;
}

/** A connection of pg. */
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
  /** The server's process as reported when the connection was made. A pooler reports another number. */
  readonly processID?: number | null;
  release(error?: Error): void;
  on(event: 'error', listener: (error: Error) => void): unknown;
}
