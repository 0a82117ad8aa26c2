import type { DataSource } from 'typeorm';
import { ConfigurationError } from '../operation/errors.js';
import type { Statement } from './statement.js';

/** The part of a pg Pool, PoolClient or Client that statements need. */
export interface Queryable {
  query(query: {
    name?: string;
    text: string;
    values: unknown[];
  }): Promise<{ rows: any[]; rowCount: number | null }>;
}

/**
 * The part of a pg Pool that the library needs. Its own words instead of pg's types, which applications without
 * `@types/pg` do not have.
 */
export interface ConnectionPool extends Queryable {
  connect(): Promise<PooledConnection>;
}

/** A connection of a {@link ConnectionPool}. Released with an error, it is closed. */
export interface PooledConnection extends Queryable {
  query(query: string | { name?: string; text: string; values: unknown[] }): ReturnType<Queryable['query']>;
  release(error?: Error): void;
}

/**
 * The seam to Postgres: runs the library's statements as named prepared statements on the driver's own pool, because
 * TypeORM's `query()` prepares nothing. Connections come from the application's DataSource; none are opened here.
 */
export class Database {
  readonly #quotedSchema: string;
  readonly #prepared = new Map<Statement, { name: string; text: string }>();

  constructor(
    readonly dataSource: DataSource,
    readonly schema: string,
  ) {
    if (dataSource.options.type !== 'postgres') {
      throw new ConfigurationError(
        `The ledger needs a DataSource of type "postgres", but got "${dataSource.options.type}". Give the module the name of a Postgres DataSource: forRoot({ dataSource: 'name' }).`,
      );
    }
    this.#quotedSchema = `"${schema.replaceAll('"', '""')}"`;
  }

  /** The pg pool of the DataSource. Asked for on each use: TypeORM makes a new one when it reconnects. */
  get pool(): ConnectionPool {
    return (this.dataSource.driver as unknown as { master: ConnectionPool }).master;
  }

  /** Runs a statement, on the pool or, inside a transaction, on its connection. */
  async run<Row>(statement: Statement, values: unknown[], on: Queryable = this.pool): Promise<Row[]> {
    const { rows } = await on.query({ ...this.#prepare(statement), values });
    return rows as Row[];
  }

  /** The statement's text for this schema, to run elsewhere (an EntityManager). */
  textOf(statement: Statement): string {
    return this.#prepare(statement).text;
  }

  #prepare(statement: Statement): { name: string; text: string } {
    let prepared = this.#prepared.get(statement);
    if (prepared === undefined) {
      // Two schemas may share a pool, and a prepared statement's name must mean one text per connection.
      prepared = {
        name: `idempotent_jobs.${statement.name}.${this.schema}`.slice(0, 63),
        text: statement.text.replaceAll('{schema}', this.#quotedSchema),
      };
      this.#prepared.set(statement, prepared);
    }
    return prepared;
  }
}
