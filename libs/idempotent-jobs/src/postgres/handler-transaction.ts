import { type EntityManager, QueryFailedError, type QueryRunner } from 'typeorm';
import type { PgConnection, Queryable } from './connection.js';
import type { Database } from './database.js';
import { answered, QUERY_TIMEOUT_MS, STATEMENT_TIMEOUT_MS } from './ledger-pool.js';
import { listenForErrors } from './listen-for-errors.js';
import { namedFailure } from './no-connection.js';
import { statement } from './statement.js';

/** How long a handler's transaction may take, on the server too. */
export interface TransactionLimits {
  readonly tenantId: string;
  /** How long the claim waits for a row that is being inserted, in ms. */
  readonly lockTimeoutMs: number;
  /** How long the session may sit in the open transaction without a statement, in ms: its process is gone then. */
  readonly idleMs: number;
}

/**
 * Ends a session, and waits until it is gone. Parameters: its process, when its transaction began. A process that another
 * session has by now is in another transaction, or in none. No row: it is gone.
 */
const END_SESSION = statement(
  'end_session',
  'SELECT pg_terminate_backend(pid, 5000) AS is_gone FROM pg_stat_activity WHERE pid = $1 AND xact_start = $2::timestamptz',
  'record',
);

const OPEN = `
SELECT
  pg_backend_pid() AS pid,
  now()::text AS began_at,
  current_setting('statement_timeout') AS statement_timeout,
  set_config('app.tenant_id', $1, true),
  set_config('lock_timeout', $2, true),
  set_config('statement_timeout', $3, true),
  set_config('idle_in_transaction_session_timeout', $4, true)`;

interface Opened {
  readonly pid: number;
  readonly began_at: string;
  readonly statement_timeout: string;
}

/**
 * The transaction of one transactional attempt: the claim, the handler's writes and the outcome commit together or
 * not at all. Behind a savepoint set after the claim, so that a failed handler's writes can be taken back and its
 * failure recorded under the same claim, without ever letting go of the row.
 *
 * Nothing of it is waited for without end. What does not answer is destroyed, here and on the server: its session would
 * keep its locks for as long as its statement takes, whoever is still connected to it.
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
    { idleMs }: TransactionLimits,
  ) {
    this.#endsByItselfMs = idleMs;
  }

  /**
   * Opens a transaction that carries the tenant as `app.tenant_id`, for row-level security of the application's own
   * tables.
   *
   * @throws NoConnectionError when the application's pool has no connection in time, or Postgres does not answer
   */
  static async open(database: Database, limits: TransactionLimits): Promise<HandlerTransaction> {
    const giveBack = await database.handlerConnections.take();
    // TypeORM may have made a new pool since: its connections need a listener before one is taken.
    listenForErrors(database.applicationPool);
    const runner = database.dataSource.createQueryRunner();
    try {
      const connection = database.borrowed(await connectionOf(runner));
      await answeredByRunner(runner.startTransaction());
      const { rows } = await connection.query({
        name: 'idempotent_jobs.open',
        text: OPEN,
        values: [
          limits.tenantId,
          `${limits.lockTimeoutMs}ms`,
          `${STATEMENT_TIMEOUT_MS}ms`,
          `${Math.ceil(limits.idleMs)}ms`,
        ],
      });
      const session = rows[0] as Opened;
      return new HandlerTransaction(database, runner, connection, session, giveBack, limits);
    } catch (error) {
      // A connection that comes after all must not stay with a runner that nobody uses.
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
   * From here on the handler may write; the session's own lock timeout applies again, and no statement takes longer than
   * the attempt may, nor than the session's own limit.
   */
  async protect(attemptMs: number): Promise<void> {
    const limitMs = Math.ceil(Math.max(1, Math.min(attemptMs + GRACE_MS, ownLimitMs(this.session))));
    this.#endsByItselfMs = Math.max(this.#endsByItselfMs, limitMs);
    await this.connection.query({
      text: `SAVEPOINT idempotent_jobs_attempt; SET LOCAL lock_timeout TO DEFAULT; SET LOCAL statement_timeout = ${limitMs}`,
    });
  }

  /** Takes back what the handler wrote, and keeps the claim. */
  async revert(): Promise<void> {
    await this.connection.query({ text: 'ROLLBACK TO SAVEPOINT idempotent_jobs_attempt' });
  }

  /** @throws if the answer to COMMIT was lost, or was an error; which of both only the row can tell */
  async commit(): Promise<void> {
    await this.#end(() => this.runner.commitTransaction());
  }

  async rollback(): Promise<void> {
    await this.#end(() => this.runner.rollbackTransaction());
  }

  /** From now on the manager refuses to write, whoever still has it. */
  refuse(): void {
    (this.runner as { isReleased: boolean }).isReleased = true;
  }

  /**
   * Ends the session, on the server first: an abandoned handler may still be writing through it, and nobody else must get
   * its connection, or wait for its locks. Its share is free when it is gone. Does nothing to a transaction that has ended.
   */
  async destroy(): Promise<void> {
    if (this.#isOver) return;
    this.#isOver = true;
    this.refuse();
    const isGone = await this.#endSession();
    (this.runner as { isReleased: boolean }).isReleased = false;
    await drop(this.runner);
    if (isGone) this.giveBack();
    // Postgres cannot be asked now; the session's own limits end it, and its share is its own until then.
    else setTimeout(this.giveBack, this.#endsByItselfMs).unref();
  }

  async #endSession(): Promise<boolean> {
    try {
      const { pid, began_at: beganAt } = this.session;
      const [row] = await this.database.run<{ is_gone: boolean }>(END_SESSION, [pid, beganAt]);
      return row?.is_gone !== false;
    } catch {
      return false;
    }
  }

  async #end(end: () => Promise<void>): Promise<void> {
    try {
      await answeredByRunner(end());
    } catch (error) {
      await this.destroy();
      throw error;
    }
    this.#isOver = true;
    await this.#handOn();
    this.giveBack();
  }

  /** A handler may have set the tenant for the session; its connection's next user is somebody else. */
  async #handOn(): Promise<void> {
    try {
      await this.connection.query({ text: 'RESET app.tenant_id' });
      await this.runner.release();
    } catch {
      await drop(this.runner);
    }
  }
}

/** The attempt is given up first, and says so; the server's limit is for when nobody is left to do that. */
const GRACE_MS = 500;

async function connectionOf(runner: QueryRunner): Promise<PgConnection> {
  try {
    return (await answered(runner.connect(), QUERY_TIMEOUT_MS)) as PgConnection;
  } catch (error) {
    throw namedFailure(error);
  }
}

/** TypeORM wraps what the driver says; what its subscribers throw is the application's. */
async function answeredByRunner(work: Promise<void>): Promise<void> {
  try {
    await answered(work, QUERY_TIMEOUT_MS);
  } catch (error) {
    throw error instanceof QueryFailedError ? namedFailure(error.driverError) : error;
  }
}

/** A connection that is released with an error is closed by the pool, and Postgres rolls back. */
async function drop(runner: QueryRunner): Promise<void> {
  const destroyable = runner as unknown as { releasePostgresConnection(error: Error): Promise<void> };
  await destroyable.releasePostgresConnection(new Error('The transaction was abandoned'));
}

/** The session's own `statement_timeout`, as `current_setting` writes it, in ms; Infinity: it has none. */
function ownLimitMs({ statement_timeout: setting }: Opened): number {
  const [, digits, unit = 'ms'] = /^(\d+)(ms|s|min|h|d)?$/.exec(setting) ?? [];
  const limit = Number(digits ?? 0) * (UNITS_MS[unit] ?? 1);
  return limit === 0 ? Infinity : limit;
}

const UNITS_MS: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1000,
  min: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};
