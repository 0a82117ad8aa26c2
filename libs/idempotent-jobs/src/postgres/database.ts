import { hash } from 'node:crypto';
import type { DataSource } from 'typeorm';
import { ConfigurationError } from '../operation/errors.js';
import { ConnectionShare } from './connection-share.js';
import { Location, nameDatabase } from './location.js';
import type { Statement } from './statement.js';

/** The part of a pg Pool, PoolClient or Client that statements need. */
export interface Queryable {
  query(query: {
    name?: string;
    text: string;
    values: unknown[];
    query_timeout?: number;
  }): Promise<{ rows: any[]; rowCount: number | null }>;
}

/**
 * The part of a pg Pool that the library needs. Its own words instead of pg's types, which applications without
 * `@types/pg` do not have.
 */
export interface ConnectionPool extends Queryable {
  readonly options: { readonly max: number };
  connect(): Promise<PooledConnection>;
}

/** A connection of a {@link ConnectionPool}. Released with an error, it is closed. */
export interface PooledConnection extends Queryable {
  query(query: string | Parameters<Queryable['query']>[0]): ReturnType<Queryable['query']>;
  release(error?: Error): void;
  on(event: 'error', listener: (error: Error) => void): unknown;
  removeListener(event: 'error', listener: (error: Error) => void): unknown;
}

/**
 * The seam to Postgres: runs the library's statements as named prepared statements on the driver's own pool, because
 * TypeORM's `query()` prepares nothing. Connections come from the application's DataSource; none are opened here.
 */
export class Database {
  readonly #quotedSchema: string;
  #handlerConnections: ConnectionShare | undefined;
  readonly #prepared = new Map<Statement, PreparedStatement>();
  /** Where the ledger is. */
  readonly location = new Location(() => nameDatabase(this.pool));

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

  /** The connections that handler transactions may hold. */
  get handlerConnections(): ConnectionShare {
    this.#handlerConnections ??= new ConnectionShare(this.pool.options.max);
    return this.#handlerConnections;
  }

  /** Runs a statement, on the pool or, inside a transaction, on its connection. Rejects without an answer in `timeoutMs`. */
  async run<Row>(
    statement: Statement,
    values: unknown[],
    on: Queryable = this.pool,
    timeoutMs = QUERY_TIMEOUT_MS,
  ): Promise<Row[]> {
    const prepared = this.#prepare(statement);
    const { rows } = await on.query({
      name: prepared.nextName(),
      text: prepared.text,
      values,
      query_timeout: timeoutMs,
    });
    return rows as Row[];
  }

  /** The statement's text for this schema, to run elsewhere (an EntityManager). */
  textOf(statement: Statement): string {
    return this.#prepare(statement).text;
  }

  #prepare(statement: Statement): PreparedStatement {
    let prepared = this.#prepared.get(statement);
    if (prepared === undefined) {
      // Two schemas may share a pool, and a prepared statement's name must mean one text per connection.
      const name = `idempotent_jobs.${this.schema}.${statement.name}`;
      prepared = new PreparedStatement(
        name,
        statement.text.replaceAll('{schema}', () => this.#quotedSchema),
      );
      this.#prepared.set(statement, prepared);
    }
    return prepared;
  }
}

/**
 * A prepared statement that is planned anew as it is used more: after 8, 64, 512 … uses it goes on under another name.
 * Postgres keeps a prepared statement's plan until the table is analysed. A plan made for an empty ledger scans the
 * whole table, which costs nothing then, and everything a minute later, when a burst has filled it.
 */
class PreparedStatement {
  #uses = 0;
  #nextPlanAt = 1;
  #name = '';

  constructor(
    private readonly baseName: string,
    readonly text: string,
  ) {}

  nextName(): string {
    this.#uses += 1;
    if (this.#uses >= this.#nextPlanAt && this.#nextPlanAt <= MAX_REPLANNED_USES) {
      // Names are cut at 63 bytes, and two that are cut alike would be one; a digest keeps them apart.
      this.#name = `ij_${hash('sha256', `${this.baseName}.${this.#nextPlanAt}`, 'base64url')}`;
      this.#nextPlanAt *= 8;
    }
    return this.#name;
  }
}

/**
 * How long a statement may stay without an answer. A connection that died without a word would otherwise keep its slot,
 * and whoever waits for it, for good; after this time the pool closes it.
 */
export const QUERY_TIMEOUT_MS = 10_000;

/** By then the table is as large as it gets, or autovacuum has looked at it. */
const MAX_REPLANNED_USES = 8 ** 6;
