import { type EntityManager, QueryFailedError, type QueryRunner } from 'typeorm';
import { type PgConnection, type Queryable, listenForErrors } from './connection.js';
import type { Database } from './database.js';
import { answered, QUERY_TIMEOUT_MS, STATEMENT_TIMEOUT_MS } from './ledger-pool.js';
import { namedFailure } from './no-connection.js';
import { statement } from './statement.js';

/** How long a handler's transaction may take, on the server too. */
export interface TransactionLimits {
  readonly tenantId: string;
  /** How long the claim waits for a row that another transaction is inserting, in ms. */
  readonly lockTimeoutMs: number;
  /**
   * How long the session may stay in the open transaction without a statement, in ms; its process is taken for dead then.
   */
  readonly idleMs: number;
  /** How long to wait for a connection, in ms. */
  readonly patienceMs: number;
  /** Aborts that wait. */
  readonly signalOf?: (() => AbortSignal) | undefined;
}

/**
 * Ends a session, and waits until it is gone. The moment its transaction began identifies it: a session that now has the
 * same process number is in another transaction, or in none. No row means that the session is gone.
 */
const END_SESSION = statement(
  'end_session',
  'SELECT pg_terminate_backend(pid, 5000) AS is_gone FROM pg_stat_activity WHERE pid = :pid AND EXTRACT(EPOCH FROM xact_start)::text = :beganAt',
  'record',
);

const OPEN = `
SELECT
  pg_backend_pid() AS pid,
  EXTRACT(EPOCH FROM now())::text AS began_at,
  EXTRACT(EPOCH FROM current_setting('statement_timeout')::interval)::float8 * 1000 AS own_limit_ms,
  current_setting('DateStyle') AS date_style,
  set_config('DateStyle', 'ISO', true),
  set_config('app.tenant_id', $1, true),
  set_config('lock_timeout', $2, true),
  set_config('statement_timeout', $3, true),
  set_config('idle_in_transaction_session_timeout', $4, true)`;

interface Opened {
  readonly pid: number;
  readonly began_at: string;
  /** The session's own `statement_timeout`, in ms. 0 when it has none. */
  readonly own_limit_ms: number;
  readonly date_style: string;
}

/**
 * The transaction of one transactional attempt: the claim, the handler's writes and the outcome commit together or not at
 * all. A savepoint follows the claim, so that the writes of a failed handler can be rolled back and its failure recorded
 * under the same claim, without releasing the row.
 *
 * Nothing waits for the transaction without end. One that does not answer is destroyed, here and on the server, where its
 * session would otherwise keep its locks for as long as its statement takes.
 */
export class HandlerTransaction {
  #isOver = false;
  #endsByItselfMs: number;

  private constructor(
    private readonly database: Database,
    private readonly runner: QueryRunner,
    /** The transaction's own connection, for the library's statements. */
    readonly connection: Queryable,
    private readonly session: Opened,
    private readonly giveBack: () => void,
    private readonly limits: TransactionLimits,
  ) {
    this.#endsByItselfMs = limits.idleMs;
  }

  /**
   * Opens a transaction that carries the tenant as `app.tenant_id`, for row-level security of the application's own
   * tables. Returns undefined when other handlers' transactions have all connections and none of them has ended in time.
   *
   * @throws NoConnectionError when the application's pool has no connection in time, or Postgres does not answer
   */
  static async open(database: Database, limits: TransactionLimits): Promise<HandlerTransaction | undefined> {
    const giveBack = await database.handlerConnections.take('handler', limits.patienceMs, limits.signalOf);
    if (giveBack === undefined) return undefined;
    const runner = database.dataSource.createQueryRunner();
    try {
      // TypeORM may have made a new pool since; its connections need a listener before one is taken.
      listenForErrors(database.applicationPool);
      const connection = database.borrowed(await connectionOf(runner));
      await answeredByRunner(runner.startTransaction());
      const { rows } = await connection.query({
        name: 'idempotent_jobs.open',
        text: OPEN,
        values: [
          limits.tenantId,
          inMs(limits.lockTimeoutMs),
          inMs(STATEMENT_TIMEOUT_MS),
          inMs(limits.idleMs),
        ],
      });
      const session = rows[0] as Opened;
      return new HandlerTransaction(database, runner, connection, session, giveBack, limits);
    } catch (error) {
      // A connection that still arrives must be released from the unused runner.
      void runner
        .connect()
        .then(() => drop(runner))
        .catch(() => undefined);
      giveBack();
      throw error;
    }
  }

  get manager(): EntityManager {
    return this.runner.manager;
  }

  /**
   * From here on the handler may write. The session's own lock timeout applies again, and no statement takes longer than
   * the attempt may, nor than the session's own limit.
   */
  async protect(attemptMs: number): Promise<void> {
    const limitMs = Math.max(1, Math.min(attemptMs + GRACE_MS, this.session.own_limit_ms || Infinity));
    this.#endsByItselfMs = Math.max(this.#endsByItselfMs, limitMs);
    await this.connection.query({
      text: `SAVEPOINT idempotent_jobs_attempt; SET LOCAL lock_timeout TO DEFAULT; SET LOCAL DateStyle = '${this.session.date_style}'; SET LOCAL statement_timeout = '${inMs(limitMs)}'`,
    });
  }

  /** Rolls back what the handler wrote, and keeps the claim. */
  async revert(): Promise<void> {
    await this.connection.query({ text: 'ROLLBACK TO SAVEPOINT idempotent_jobs_attempt' });
  }

  /** @throws if the answer to COMMIT was lost or was an error; only the row can tell which of the two happened */
  async commit(): Promise<void> {
    await this.#end(async () => {
      await this.#forgetTenant();
      await answeredByRunner(this.runner.commitTransaction());
    });
  }

  async rollback(): Promise<void> {
    await this.#end(async () => {
      await answeredByRunner(this.runner.rollbackTransaction());
      // A handler that ended the transaction itself may have set the tenant afterwards.
      if (!this.database.isPooled) await this.connection.query({ text: 'RESET app.tenant_id' });
    });
  }

  /**
   * A handler may have set the tenant for the session, which the pool hands to another user next. A pooler does so as soon
   * as the transaction is committed, so the setting is reset inside of the transaction, which itself keeps the tenant.
   */
  async #forgetTenant(): Promise<void> {
    await this.connection.query({
      name: 'idempotent_jobs.forget_tenant',
      // NULL resets a setting.
      text: `SELECT set_config('app.tenant_id', NULL, false), set_config('app.tenant_id', $1, true)`,
      values: [this.limits.tenantId],
    });
  }

  /** From now on the manager refuses to write, for every holder of it. */
  refuse(): void {
    (this.runner as { isReleased: boolean }).isReleased = true;
  }

  /**
   * Ends the session, on the server first: an abandoned handler may still be writing through it, and no other user may get
   * its connection, or wait for its locks. The connection's share is given back once the session is gone. Does nothing
   * when the transaction has ended.
   */
  async destroy(): Promise<void> {
    if (this.#isOver) return;
    this.#isOver = true;
    this.refuse();
    const isGone = await this.#endSession();
    (this.runner as { isReleased: boolean }).isReleased = false;
    await drop(this.runner);
    if (isGone) this.giveBack();
    else this.#giveBackOnceItIsGone();
  }

  /** Postgres cannot be asked now. Asks again until the session is gone, at the latest when its own limits have ended it. */
  #giveBackOnceItIsGone(): void {
    const overAt = performance.now() + this.#endsByItselfMs;
    const look = async (): Promise<void> => {
      if (performance.now() >= overAt || (await this.#endSession())) this.giveBack();
      else lookLater();
    };
    const lookLater = (): void => void setTimeout(() => void look(), LOOK_AGAIN_MS).unref();
    lookLater();
  }

  async #endSession(): Promise<boolean> {
    try {
      const { pid, began_at: beganAt } = this.session;
      const [row] = await this.database.run<{ is_gone: boolean }>(END_SESSION.with({ pid, beganAt }));
      return row?.is_gone !== false;
    } catch {
      return false;
    }
  }

  async #end(end: () => Promise<void>): Promise<void> {
    try {
      await end();
    } catch (error) {
      await this.destroy();
      throw error;
    }
    this.#isOver = true;
    await this.runner.release();
    this.giveBack();
  }
}

/** A restart of Postgres is over within seconds; those who wait for a connection should not wait much longer than that. */
const LOOK_AGAIN_MS = 500;

/** The longest time that Postgres accepts for a limit. */
const MAX_WAIT_MS = 2 ** 31 - 1;

/** As Postgres reads a time. */
function inMs(ms: number): string {
  return `${Math.min(Math.ceil(ms), MAX_WAIT_MS)}ms`;
}

/** The attempt gives up first and reports it; the server's limit is for a process that can no longer do that. */
const GRACE_MS = 500;

async function connectionOf(runner: QueryRunner): Promise<PgConnection> {
  try {
    return (await answered(runner.connect(), QUERY_TIMEOUT_MS)) as PgConnection;
  } catch (error) {
    throw namedFailure(error);
  }
}

/** Turns an error of the driver, which TypeORM wraps, into the library's own; other errors stay as they are. */
async function answeredByRunner(work: Promise<void>): Promise<void> {
  try {
    await answered(work, QUERY_TIMEOUT_MS);
  } catch (error) {
    throw error instanceof QueryFailedError ? namedFailure(error.driverError) : error;
  }
}

/** The pool closes a connection that is released with an error, and Postgres rolls back. */
async function drop(runner: QueryRunner): Promise<void> {
  const destroyable = runner as unknown as { releasePostgresConnection(error: Error): Promise<void> };
  await destroyable.releasePostgresConnection(new Error('The transaction was abandoned'));
}
