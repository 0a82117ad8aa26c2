import { setTimeout as pause } from 'node:timers/promises';
import { ConfigurationError, PROGRAM } from '../../operation/errors.js';
import type { Database } from './database.js';
import type { LedgerPoolOptions } from './ledger-pool.js';
import { nameDatabase } from './location.js';
import { isConnectionTrouble, namedFailure } from './no-connection.js';
import { onConnectionOf } from './on-connection-of.js';
import { probePoolers } from './pooler-probe.js';
import { ensureSchema } from './schema-guard.js';

/**
 * Checks once, at boot, that the ledger can be used: its connections lead where they must, and its schema is the one that
 * this package was written for. If not, no connection of the library stays open.
 *
 * @throws ConfigurationError saying what is wrong and what to do
 */
export async function prepareLedger(
  database: Database,
  { migrations, pool }: { readonly migrations: 'run' | 'check'; readonly pool: LedgerPoolOptions },
  onError: (message: string, error: unknown) => void,
): Promise<void> {
  const buildIndexes = (building: Promise<void>): void =>
    void building.catch((error: unknown) => {
      if (!database.closing.aborted)
        onError(
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
    await retryAtBoot(() => ensureSchema(database, migrations, buildIndexes));
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
