import { ConfigurationError } from '../../operation/errors.js';
import type { ConnectionPool, PooledConnection } from './connection.js';
import type { Database } from './database.js';
import { answered, QUERY_TIMEOUT_MS } from './ledger-pool.js';
import { LEDGER_TYPES } from './ledger-types.js';
import { onConnectionOf } from './on-connection-of.js';

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
export async function probePoolers(database: Database, leadsElsewhere: boolean): Promise<void> {
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
