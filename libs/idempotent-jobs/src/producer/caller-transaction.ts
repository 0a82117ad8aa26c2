import type { QueryRunner } from 'typeorm';
import { dataSourceOf } from '../ledger/postgres/query-runner.js';
import { UsageError } from '../operation/errors.js';
import type { Database, Queryable } from '../ledger/postgres/database.js';
import { LEDGER_TYPES } from '../ledger/postgres/connection.js';
import { nameDatabase } from '../ledger/postgres/location.js';
import type { EnqueueTransaction, TransactionClient } from './enqueue.options.js';

/** The caller's open transaction, while something is enqueued in it. */
export interface CallerTransaction {
  /** The transaction's own connection. Statements run with the caller's own timeouts, and are not prepared. */
  readonly connection: Queryable;
  /** Which database it is in, as `nameDatabase` names it. */
  readonly databaseName: string;
  /** Rolls back what was done so far, even after a failed statement, so that it can be done in another way. */
  undo(): Promise<void>;
}

/**
 * Does `work` in the caller's transaction, whichever kind of handle was passed. It works behind a savepoint: when `work`
 * throws, all of it is rolled back and the transaction stays usable, so that the caller may catch the error and go on.
 * Calls in one transaction take turns, because savepoints cannot separate concurrent calls.
 *
 * @throws UsageError if no transaction is open, or it is open on another database than the ledger's
 */
export async function inCallerTransaction<T>(
  transaction: EnqueueTransaction,
  database: Database,
  work: (caller: CallerTransaction) => Promise<T>,
): Promise<T> {
  const runner = runnerOf(transaction);
  const client = runner === undefined ? (transaction as TransactionClient) : await connectionOf(runner);
  const isOnLedger = runner !== undefined && dataSourceOf(runner) === database.dataSource;
  return inTurn(client, async () => {
    const connection: Queryable = {
      query: ({ text, values = [] }) => client.query({ text, values, types: LEDGER_TYPES }),
    };
    const say = (text: string): Promise<unknown> => connection.query({ text, values: [] });
    await openSavepoint(say);
    const undo = async (): Promise<void> => {
      await say(`ROLLBACK TO SAVEPOINT ${SAVEPOINT}`);
    };
    try {
      let databaseName = await locate(client, connection);
      if (!isOnLedger && (await database.location.is(databaseName)) === false) {
        // The remembered name may be out of date: a pooler can lead a connection to another server.
        databaseNames.delete(client);
        databaseName = await locate(client, connection);
        if ((await database.location.is(databaseName)) === false) throw new UsageError(ELSEWHERE);
      }
      const result = await work({ connection, databaseName, undo });
      await say(`RELEASE SAVEPOINT ${SAVEPOINT}`);
      return result;
    } catch (error) {
      // If the connection is gone, so is the transaction; the caller must get the first error.
      await undo()
        .then(() => say(`RELEASE SAVEPOINT ${SAVEPOINT}`))
        .catch(() => undefined);
      throw error;
    }
  });
}

const SAVEPOINT = 'idempotent_jobs_enqueue';

async function openSavepoint(say: (text: string) => Promise<unknown>): Promise<void> {
  try {
    await say(`SAVEPOINT ${SAVEPOINT}`);
  } catch (error) {
    const { code } = error as { code?: unknown };
    if (code === NO_ACTIVE_TRANSACTION) throw new UsageError(NOT_OPEN);
    if (code === IN_FAILED_TRANSACTION) throw new UsageError(FAILED);
    throw error;
  }
}

/** SQLSTATEs. */
const NO_ACTIVE_TRANSACTION = '25P01';
const IN_FAILED_TRANSACTION = '25P02';

/**
 * The database name of each connection, remembered for a minute. A connection stays in one database, but behind a pooler
 * (PgBouncer) its server may be replaced, and another server has another name.
 */
const databaseNames = new WeakMap<TransactionClient, { readonly name: string; readonly askedAt: number }>();
const NAME_LASTS_MS = 60_000;

async function locate(client: TransactionClient, connection: Queryable): Promise<string> {
  const known = databaseNames.get(client);
  if (known !== undefined && performance.now() - known.askedAt < NAME_LASTS_MS) return known.name;
  const name = await nameDatabase(connection);
  databaseNames.set(client, { name, askedAt: performance.now() });
  return name;
}

/** The QueryRunner of the caller's handle, which may be anything. Undefined when the handle is a connection of pg. */
function runnerOf(transaction: EnqueueTransaction): QueryRunner | undefined {
  if (transaction === null || typeof transaction !== 'object') throw new UsageError(NOT_ONE);
  if ('isTransactionActive' in transaction) return transaction;
  if ('queryRunner' in transaction) {
    const runner = transaction.queryRunner;
    if (runner === undefined) throw new UsageError(NOT_OPEN);
    return runner;
  }
  if ('totalCount' in transaction && 'idleCount' in transaction) throw new UsageError(POOL);
  if ('createQueryRunner' in transaction || typeof transaction.query !== 'function')
    throw new UsageError(NOT_ONE);
  return undefined;
}

async function connectionOf(runner: QueryRunner): Promise<TransactionClient> {
  if (runner.isReleased || !runner.isTransactionActive) throw new UsageError(NOT_OPEN);
  if (dataSourceOf(runner).options.type !== 'postgres') throw new UsageError(ELSEWHERE);
  return (await runner.connect()) as TransactionClient;
}

const HINT =
  'Pass the manager that dataSource.transaction(async (manager) => …) hands you, a QueryRunner after startTransaction(), or a pg client after BEGIN.';
const NOT_OPEN = `enqueue() was given a transaction that is not open. ${HINT}`;
const FAILED =
  'enqueue() was given a transaction in which a statement has failed; Postgres takes no other until it is rolled back.';
const POOL = `enqueue() was given a pg Pool, whose statements run each on another connection. ${HINT}`;
const NOT_ONE = `enqueue() was given something that is no transaction. ${HINT}`;
const ELSEWHERE =
  'enqueue() was given a transaction on another database than the ledger’s, with which it cannot commit together. Give the module that database: forRoot({ dataSource }), or enqueue without a transaction.';

/** The last call in each transaction, by its connection. */
const turns = new WeakMap<TransactionClient, Promise<unknown>>();

async function inTurn<T>(client: TransactionClient, work: () => Promise<T>): Promise<T> {
  const turn = (turns.get(client) ?? Promise.resolve()).then(work, work);
  turns.set(client, turn);
  return turn;
}
