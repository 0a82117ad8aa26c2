import { setTimeout as pause } from 'node:timers/promises';
import { isConnectionTrouble } from '../../ledger/postgres/no-connection.js';
import { RowLockedError } from '../../ledger/record/row-locked.js';
import { sqlStateOf } from '../../ledger/postgres/sqlstate.js';

/**
 * Tries a statement again for as long as the lease may still be held, unless its own data is at fault. Claims under one
 * worker and writes under a fencing token say the same when asked twice, so trying again cannot do anything twice.
 */
export async function withRetry<T>(patienceMs: number, write: () => Promise<T>): Promise<T> {
  const giveUpAt = performance.now() + patienceMs;
  for (let waitMs = 50; ; waitMs = Math.min(waitMs * 2, 2000)) {
    try {
      return await write();
    } catch (error) {
      if (!isWorthAnotherTry(error) || performance.now() + waitMs >= giveUpAt) throw error;
    }
    await pause(waitMs);
  }
}

/**
 * How long the end of an attempt is tried to be recorded, in ms: for as long as its lease, and longer where that is short.
 * Under its token it can be recorded until somebody has taken over.
 */
export function recordPatienceMs(leaseMs: number): number {
  return Math.max(leaseMs, MIN_RECORD_PATIENCE_MS);
}

/** Longer than a table is locked by a careful migration, a backup or a restart. */
const MIN_RECORD_PATIENCE_MS = 20_000;

/**
 * Whether it is Postgres's state that is at fault, and not the statement: data exceptions (22), constraint violations
 * (23), statements or objects that are wrong or missing (42) and errors that are not Postgres's stay what they are.
 */
function isWorthAnotherTry(error: unknown): boolean {
  if (error instanceof RowLockedError) return true;
  const state = sqlStateOf(error);
  return state === undefined ? isConnectionTrouble(error) : !/^(?:22|23|42)/.test(state);
}
