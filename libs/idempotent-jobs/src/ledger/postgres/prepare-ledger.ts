import { setTimeout as pause } from 'node:timers/promises';
import { ConfigurationError, PROGRAM } from '../../operation/errors.js';
import type { Database } from './database.js';
import { type LedgerPoolOptions, answered, QUERY_TIMEOUT_MS } from './ledger-pool.js';
import { nameDatabase } from './location.js';
import { isConnectionTrouble, namedFailure } from './no-connection.js';
import { schemaSteps } from './migrations.js';
import { ensureSchema, comparePartitions } from './schema-guard.js';
import { type ConnectionPool, type PooledConnection, LEDGER_TYPES } from './connection.js';

/** What is asked of the ledger. */
interface LedgerOptions {
  readonly migrations: 'run' | 'check';
  readonly partitions: number | undefined;
  readonly pool: LedgerPoolOptions;
}

/** Where it is said what does not keep the application from starting. */
interface LedgerLog {
  readonly trouble: (message: string, error: unknown) => void;
  warn(message: string): void;
}

/**
 * Checks once, at boot, that the ledger can be used: its connections lead where they must, and its schema is the one that
 * this package was written for. If not, no connection of the library stays open.
 *
 * @throws ConfigurationError saying what is wrong and what to do
 */
export async function prepareLedger(
  database: Database,
  { migrations, partitions, pool }: LedgerOptions,
  log: LedgerLog,
): Promise<void> {
  const buildIndexes = (building: Promise<void>): void =>
    void building.catch((error: unknown) => {
      if (!database.closing.aborted)
        log.trouble(
          `The ledger's indexes could not all be built. They are at the next start, or by "${PROGRAM} migrate"`,
          error,
        );
    });
  const leadsElsewhere = Object.keys(pool.connection).length > 0;
  try {
    await retryAtBoot(() => probePoolers(database, leadsElsewhere));
    if (leadsElsewhere) {
      await retryAtBoot(() => refuseOtherDatabase(database));
      await retryAtBoot(() => refusePowerlessRole(database));
    }
    await retryAtBoot(() => ensureSchema(database, migrations, buildIndexes, schemaSteps(partitions)));
    // It works as well with other partitions, or without: no reason to keep the application from starting.
    await retryAtBoot(async () => {
      const amiss = await comparePartitions(database, partitions);
      if (amiss !== undefined) log.warn(amiss);
    });
  } catch (error) {
    await database.close();
    throw error;
  }
}

/** Compares names of databases and not addresses: through a pooler and around it, the name must be the same. */
async function refuseOtherDatabase(database: Database): Promise<void> {
  const [theirs, ours] = await Promise.all([
    onConnectionOf(database.applicationPool, (connection) => nameDatabase(database.borrowed(connection))),
    nameDatabase(database.inLane('other')),
  ]);
  if (theirs === ours) return;
  throw new ConfigurationError(
    "forRoot({ pool: { connection } }) leads to another database than the DataSource, whose transactions the ledger must share. Give the address of the DataSource's own database.",
  );
}

/** The library's role ends sessions of abandoned handler transactions, so it must be allowed to end the DataSource's. */
async function refusePowerlessRole(database: Database): Promise<void> {
  const { rows } = await onConnectionOf(database.applicationPool, (connection) =>
    database.borrowed(connection).query({ text: 'SELECT session_user AS role' }),
  );
  const { role } = rows[0] as { role: string };
  const found = await database.inLane('other').query({
    text: `SELECT session_user AS own, pg_has_role(session_user, $1, 'USAGE') AS may_end`,
    values: [role],
  });
  const { own, may_end: mayEnd } = found.rows[0] as { own: string; may_end: boolean };
  if (mayEnd) return;
  throw new ConfigurationError(
    `forRoot({ pool: { connection } }) uses the role "${own}", which may not end sessions of the DataSource's role "${role}": handlers that took too long would go on in Postgres. Use the same role, or GRANT "${role}" TO "${own}".`,
  );
}

/** A planned restart of Postgres, or a failover, is mostly over by then. */
const PATIENCE_MS = 30_000;
const PAUSE_MS = 500;

/** Retries for a while what fails because Postgres starts, stops or cannot be reached. */
async function retryAtBoot(work: () => Promise<void>): Promise<void> {
  const giveUpAt = performance.now() + PATIENCE_MS;
  for (;;) {
    try {
      return await work();
    } catch (error) {
      const isPassing = !(error instanceof ConfigurationError) && isConnectionTrouble(namedFailure(error));
      if (!isPassing || performance.now() >= giveUpAt) throw error;
    }
    await pause(PAUSE_MS);
  }
}

/**
 * Finds out once, at boot, whether a pooler in transaction mode (PgBouncer) stands before Postgres. What is prepared, set
 * or listened for on such a connection belongs to another client a moment later: operations would be lost or left in
 * doubt.
 *
 * The application's own connections may go through such a pooler; then nothing is prepared on them. The library's must
 * not.
 *
 * @throws ConfigurationError if the library's own connections lead through such a pooler
 */
async function probePoolers(database: Database, leadsElsewhere: boolean): Promise<void> {
  database.isPooled = await isShared(database.applicationPool);
  const isOwnShared = leadsElsewhere ? await isShared(database.own.pool) : database.isPooled;
  if (isOwnShared) throw new ConfigurationError(FIX);
}

const FIX =
  'A pooler in transaction mode (PgBouncer: pool_mode = transaction) stands between the ledger and Postgres. Leases, prepared statements and NOTIFY need connections that stay on one server process. ' +
  "Lead the library's own few connections around the pooler, forRoot({ pool: { connection: { host: '<Postgres>', port: 5432 } } }), while the application goes on through it; or give them a database of the pooler with pool_mode = session.";

/**
 * Whether one server process can serve two connections of the pool. A single check is enough when the process is the one
 * that the connection was made with: then there is no pooler.
 */
function isShared(pool: ConnectionPool): Promise<boolean> {
  return onConnectionOf(pool, async (one) => {
    const first = await pidOf(one);
    if (one.processID === first) return false;
    return pool.options.max < 2
      ? changes(one, first)
      : onConnectionOf(pool, (other) => takesTurns(one, other, first));
  });
}

async function changes(one: PooledConnection, first: number): Promise<boolean> {
  for (let look = 1; look <= LOOKS; look += 1) if ((await pidOf(one)) !== first) return true;
  return false;
}

/** Other traffic may come in between, so that one check is not enough. */
const LOOKS = 5;

/** A pooler in transaction mode gives the next statement to the server process that became free last. */
async function takesTurns(one: PooledConnection, other: PooledConnection, first: number): Promise<boolean> {
  for (let look = 1; look <= LOOKS; look += 1) {
    const pids = [await pidOf(one), await pidOf(other)];
    if (pids[0] === pids[1] || pids[0] !== first) return true;
  }
  return false;
}

async function pidOf(connection: PooledConnection): Promise<number> {
  const asked = connection.query({ text: 'SELECT pg_backend_pid() AS pid', types: LEDGER_TYPES });
  return ((await answered(asked, QUERY_TIMEOUT_MS)).rows[0] as { pid: number }).pid;
}

/**
 * Does `work` on a connection of the pool, the library's or the application's. When `work` fails, the connection is
 * closed, because an answer may still be under way on it.
 *
 * @throws NoAnswerError when the pool has no connection within 10 s
 */
async function onConnectionOf<T>(
  pool: ConnectionPool,
  work: (connection: PooledConnection) => Promise<T>,
): Promise<T> {
  const coming = pool.connect();
  let connection: PooledConnection;
  try {
    connection = await answered(coming, QUERY_TIMEOUT_MS);
  } catch (error) {
    // The connection may still come, and must be released then.
    coming.then(
      (late) => late.release(),
      () => undefined,
    );
    throw error;
  }
  let broken: Error | undefined;
  try {
    return await work(connection);
  } catch (error) {
    broken = error as Error;
    throw error;
  } finally {
    connection.release(broken);
  }
}
