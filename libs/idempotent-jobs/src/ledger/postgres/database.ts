import { hash } from 'node:crypto';
import type { DataSource } from 'typeorm';
import { ConfigurationError } from '../../operation/errors.js';
import {
  type ConnectionPool,
  type PgConnection,
  type Query,
  type Queryable,
  LEDGER_TYPES,
  listenForErrors,
} from './connection.js';
import { handlerPlaces, type Lane, type Places } from './lanes.js';
import {
  answered,
  type LedgerConnection,
  LedgerPool,
  type LedgerPoolOptions,
  QUERY_TIMEOUT_MS,
} from './ledger-pool.js';
import { Location, nameDatabase } from './location.js';
import { inSchema } from './sql.js';
import { namedFailure, NoConnectionError } from './no-connection.js';
import type { Call, Statement } from './statement.js';

export type { Queryable } from './connection.js';

/** Enough for a flood of requests: more of them share statements, and more connections would not make those faster. */
export const DEFAULT_POOL: LedgerPoolOptions = { max: 8, connection: {} };

/**
 * The only access to Postgres. Runs the library's statements as named prepared statements, on connections of its own
 * ({@link LedgerPool}) or, inside of a transaction of the application, on that transaction's connection.
 */
export class Database {
  #handlerConnections: Places<'handler'> | undefined;
  #own: LedgerPool | undefined;
  readonly #closing = new AbortController();
  readonly #prepared = new Map<Statement, PreparedStatement>();
  /** Which database the ledger is in. */
  readonly location = new Location(() => nameDatabase(this.inLane('other')));
  /**
   * Whether the application's connections change hands between transactions (a pooler in transaction mode), so that a
   * statement that was prepared on one cannot be found there later.
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

  /**
   * The application's pool, for handlers' transactions. Read on each use, because TypeORM makes a new pool when it
   * reconnects.
   * @throws NoConnectionError when there is none
   */
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

  /** The library's own connections, made on first use. */
  get own(): LedgerPool {
    this.#own ??= new LedgerPool(this.applicationPool, this.poolOptions);
    return this.#own;
  }

  /** Limits the connections that handler transactions may hold. */
  get handlerConnections(): Places<'handler'> {
    this.#handlerConnections ??= handlerPlaces(this.applicationPool.options.max);
    return this.#handlerConnections;
  }

  /** Ends the library's own connections. A statement that is run later makes new ones. */
  async close(): Promise<void> {
    this.#closing.abort();
    const own = this.#own;
    this.#own = undefined;
    await own?.end();
  }

  /**
   * Runs a statement by itself or, inside of a transaction, on its connection.
   *
   * @param timeoutMs how long to wait for the answer, in ms; Postgres gives up a little earlier. Default 10,000
   * @throws NoConnectionError without an answer; an error of Postgres is thrown as it is
   */
  async run<Row>({ statement, values }: Call, on?: Queryable, timeoutMs = QUERY_TIMEOUT_MS): Promise<Row[]> {
    const prepared = this.#prepare(statement);
    const query = (): Query => ({
      name: prepared.nextName(),
      text: prepared.text,
      values: values(),
      timeoutMs,
    });
    if (on !== undefined) return (await on.query(query())).rows as Row[];
    if (timeoutMs <= QUERY_TIMEOUT_MS) return (await this.own.run(query, statement.lane)).rows as Row[];
    return this.inTransaction(async (connection) => {
      // The session's limit is meant for statements that take milliseconds.
      await connection.query({ text: `SET LOCAL statement_timeout = ${Math.ceil(timeoutMs * 0.9)}` });
      return (await connection.query(query())).rows as Row[];
    }, statement.lane);
  }

  /**
   * As {@link run}, with rows as the code reads them: a column `job_name` is the property `jobName`, and NULL is undefined.
   * Not for the statements of the hot path, whose rows are read as they are.
   */
  async read<Row extends object>(call: Call, on?: Queryable, timeoutMs?: number): Promise<Row[]> {
    const rows = await this.run<Record<string, unknown>>(call, on, timeoutMs);
    const names = Object.keys(rows[0] ?? {}).map((column) => [column, camelCase(column)] as const);
    return rows.map(
      (row) => Object.fromEntries(names.map(([column, name]) => [name, row[column] ?? undefined])) as Row,
    );
  }

  /** Lends a connection of the library's own. */
  connect(lane: Lane): Promise<LedgerConnection> {
    return this.own.connect(lane);
  }

  /** Does `work` in a transaction on a connection of the library's own. Rolls back when it throws. */
  async inTransaction<T>(work: (connection: Queryable) => Promise<T>, lane: Lane = 'other'): Promise<T> {
    const connection = await this.connect(lane);
    let broken: Error | undefined;
    try {
      await connection.query({ text: 'BEGIN' });
      const result = await work(connection);
      await connection.query({ text: 'COMMIT' });
      return result;
    } catch (error) {
      // A connection that does not answer cannot roll back; Postgres does that when it is closed.
      if (error instanceof NoConnectionError) broken = error;
      else await connection.query({ text: 'ROLLBACK' }).catch((failure: Error) => (broken = failure));
      throw error;
    } finally {
      // A connection that could not roll back is closed, so that no other user finds its transaction open.
      connection.release(broken);
    }
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
 * A prepared statement that is planned again as it is used more: after 8, 64, 512 … uses, it continues under another name.
 * Postgres keeps a prepared statement's plan until the table is analysed. A plan that was made for an empty ledger scans
 * the whole table, which costs nothing then, but far too much a minute later, after a burst has filled it.
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
      // Postgres cuts names at 63 bytes, which could make two of them equal; a digest keeps them apart.
      this.#name = `ij_${hash('sha256', `${this.baseName}.${this.#nextPlanAt}`, 'base64url')}`;
      this.#nextPlanAt *= 8;
    }
    return this.#name;
  }
}

function camelCase(column: string): string {
  return column.replaceAll(/_([a-z])/g, (_all, letter: string) => letter.toUpperCase());
}

/** After so many uses the table is as large as it gets, or autovacuum has analysed it. */
const MAX_REPLANNED_USES = 8 ** 6;
