import { hash } from 'node:crypto';
import type { DataSource } from 'typeorm';
import { ConfigurationError } from '../../operation/errors.js';
import type { ConnectionPool, PgConnection, Query, Queryable, QueryResult } from './connection.js';
import { ConnectionShare } from './connection-share.js';
import type { Lane } from './lanes.js';
import {
  answered,
  type LedgerConnection,
  LedgerPool,
  type LedgerPoolOptions,
  QUERY_TIMEOUT_MS,
} from './ledger-pool.js';
import { LEDGER_TYPES } from './ledger-types.js';
import { listenForErrors } from './listen-for-errors.js';
import { Location, nameDatabase } from './location.js';
import { inSchema } from './migrations.js';
import { namedFailure, NoConnectionError } from './no-connection.js';
import type { Call, Statement } from './statement.js';

export type { Queryable } from './connection.js';

/** Enough for a flood: more share statements, they do not make them faster. */
export const DEFAULT_POOL: LedgerPoolOptions = { max: 8, connection: {} };

/**
 * The seam to Postgres: runs the library's statements as named prepared statements, on connections of its own
 * ({@link LedgerPool}), or inside of a transaction of the application, on that one's connection.
 */
export class Database {
  #handlerConnections: ConnectionShare | undefined;
  #own: LedgerPool | undefined;
  readonly #closing = new AbortController();
  readonly #prepared = new Map<Statement, PreparedStatement>();
  /** Where the ledger is. */
  readonly location = new Location(() => nameDatabase(this.inLane('other')));
  /**
   * Whether the application's connections change hands between transactions (a pooler in transaction mode), so that
   * nothing that is prepared on one can be found there later.
   */
  isPooled = false;

  constructor(
    readonly dataSource: DataSource,
    readonly schema: string,
    private readonly poolOptions: LedgerPoolOptions = DEFAULT_POOL,
  ) {
    if (dataSource.options.type !== 'postgres') {
      throw new ConfigurationError(
        `The ledger needs a DataSource of type "postgres", but got "${dataSource.options.type}". Give the module the name of a Postgres DataSource: forRoot({ dataSource: 'name' }).`,
      );
    }
  }

  /** The application's pool, for handlers' transactions. Asked for on each use: TypeORM makes a new one when it reconnects. @throws NoConnectionError when there is none */
  get applicationPool(): ConnectionPool {
    const { master } = this.dataSource.driver as unknown as { master?: ConnectionPool };
    if (master === undefined)
      throw new NoConnectionError('The DataSource is not initialized, or was destroyed.');
    listenForErrors(master);
    return master;
  }

  /** Aborted when the library's own connections end. */
  get closing(): AbortSignal {
    return this.#closing.signal;
  }

  /** The library's own connections, made when they are first used. */
  get own(): LedgerPool {
    this.#own ??= new LedgerPool(this.applicationPool, this.poolOptions);
    return this.#own;
  }

  /** The connections that handler transactions may hold. */
  get handlerConnections(): ConnectionShare {
    this.#handlerConnections ??= new ConnectionShare(this.applicationPool.options.max);
    return this.#handlerConnections;
  }

  /** Ends the library's own connections. What is asked after that makes new ones. */
  async close(): Promise<void> {
    this.#closing.abort();
    const own = this.#own;
    this.#own = undefined;
    await own?.end();
  }

  /**
   * Runs a statement by itself or, inside a transaction, on its connection.
   *
   * @param timeoutMs how long an answer is waited for, in ms; Postgres gives up a little earlier. Default 10,000
   * @throws NoConnectionError without an answer; whatever Postgres says, as it says it
   */
  async run<Row>({ statement, values }: Call, on?: Queryable, timeoutMs = QUERY_TIMEOUT_MS): Promise<Row[]> {
    const query = (): Query => ({
      ...this.#named(statement),
      values: values(),
      timeoutMs,
    });
    if (on !== undefined) return (await on.query(query())).rows as Row[];
    const { rows } =
      timeoutMs > QUERY_TIMEOUT_MS
        ? await this.#runLong(query(), timeoutMs, statement.lane)
        : await this.own.run(query, statement.lane);
    return rows as Row[];
  }

  /** Lends a connection of the library's own. */
  connect(lane: Lane): Promise<LedgerConnection> {
    return this.own.connect(lane);
  }

  /** Runs single statements on the library's own connections. */
  inLane(lane: Lane): Queryable {
    return { query: (query) => this.own.run(() => query, lane) };
  }

  /** A connection of the application, for the library's statements inside of its transaction. */
  borrowed(connection: PgConnection): Queryable {
    return {
      query: async ({ timeoutMs = QUERY_TIMEOUT_MS, name, ...query }) => {
        const named = this.isPooled || name === undefined ? query : { name, ...query };
        try {
          return await answered(connection.query({ ...named, types: LEDGER_TYPES }), timeoutMs);
        } catch (error) {
          throw namedFailure(error);
        }
      },
    };
  }

  /** The text of a statement for this schema, to run elsewhere. */
  textOf({ statement }: Call): string {
    return this.#prepare(statement).text;
  }

  /** The session's limit is for statements that are over in milliseconds. */
  async #runLong(query: Query, timeoutMs: number, lane: Lane): Promise<QueryResult> {
    const connection = await this.connect(lane);
    let broken: Error | undefined;
    try {
      await connection.query({ text: `BEGIN; SET LOCAL statement_timeout = ${Math.ceil(timeoutMs * 0.9)}` });
      const result = await connection.query(query);
      await connection.query({ text: 'COMMIT' });
      return result;
    } catch (error) {
      broken = error as Error;
      throw error;
    } finally {
      connection.release(broken);
    }
  }

  #named(statement: Statement): { readonly name: string; readonly text: string } {
    const prepared = this.#prepare(statement);
    return { name: prepared.nextName(), text: prepared.text };
  }

  #prepare(statement: Statement): PreparedStatement {
    let prepared = this.#prepared.get(statement);
    if (prepared === undefined) {
      // Two schemas may share a pool, and a prepared statement's name must mean one text per connection.
      const name = `idempotent_jobs.${this.schema}.${statement.name}`;
      prepared = new PreparedStatement(name, inSchema(this.schema, statement.text));
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

/** By then the table is as large as it gets, or autovacuum has looked at it. */
const MAX_REPLANNED_USES = 8 ** 6;
