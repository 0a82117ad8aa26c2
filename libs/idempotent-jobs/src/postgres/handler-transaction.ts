import type { EntityManager, QueryRunner } from 'typeorm';
import type { Database, Queryable } from './database.js';

/**
 * The transaction of one transactional attempt: the claim, the handler's writes and the outcome commit together or
 * not at all. Behind a savepoint set after the claim, so that a failed handler's writes can be taken back and its
 * failure recorded under the same claim, without ever letting go of the row.
 */
export class HandlerTransaction {
  private constructor(
    private readonly runner: QueryRunner,
    /** The transaction's own connection, for the library's statements. */
    readonly connection: Queryable,
    private readonly giveBack: () => void,
  ) {}

  /**
   * Opens a transaction that carries the tenant as `app.tenant_id`, for row-level security of the application's own
   * tables. Until {@link protect}, waiting for a row lock is given up after `lockTimeoutMs`.
   */
  static async open(
    database: Database,
    tenantId: string,
    lockTimeoutMs: number,
  ): Promise<HandlerTransaction> {
    const giveBack = await database.handlerConnections.take();
    const runner = database.dataSource.createQueryRunner();
    try {
      const connection = (await runner.connect()) as Queryable;
      await runner.startTransaction();
      await connection.query({
        name: 'idempotent_jobs.open',
        text: `SELECT set_config('app.tenant_id', $1, true), set_config('lock_timeout', $2, true)`,
        values: [tenantId, `${lockTimeoutMs}ms`],
      });
      return new HandlerTransaction(runner, connection, giveBack);
    } catch (error) {
      await destroy(runner);
      giveBack();
      throw error;
    }
  }

  get manager(): EntityManager {
    return this.runner.manager;
  }

  /** From here on the handler may write; the session's own lock timeout applies again. */
  async protect(): Promise<void> {
    await this.connection.query({
      text: 'SAVEPOINT idempotent_jobs_attempt; SET LOCAL lock_timeout TO DEFAULT',
      values: [],
    });
  }

  /** Takes back what the handler wrote, and keeps the claim. */
  async revert(): Promise<void> {
    await this.connection.query({ text: 'ROLLBACK TO SAVEPOINT idempotent_jobs_attempt', values: [] });
  }

  /** @throws if the answer to COMMIT was lost, or was an error; which of both only the row can tell */
  async commit(): Promise<void> {
    await this.#end(() => this.runner.commitTransaction());
  }

  async rollback(): Promise<void> {
    await this.#end(() => this.runner.rollbackTransaction());
  }

  /**
   * Ends the connection: an abandoned handler may still be writing through it, and nobody else must get it. Does
   * nothing to a transaction that has ended.
   */
  async destroy(): Promise<void> {
    await destroy(this.runner);
    this.giveBack();
  }

  async #end(statement: () => Promise<void>): Promise<void> {
    try {
      await statement();
      await this.runner.release();
      this.giveBack();
    } catch (error) {
      await this.destroy();
      throw error;
    }
  }
}

/** A connection that is released with an error is closed by the pool, and Postgres rolls back. */
async function destroy(runner: QueryRunner): Promise<void> {
  const destroyable = runner as unknown as { releasePostgresConnection(error: Error): Promise<void> };
  await destroyable.releasePostgresConnection(new Error('The transaction was abandoned'));
}
