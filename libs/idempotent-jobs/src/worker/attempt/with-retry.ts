import { setTimeout as pause } from 'node:timers/promises';
import { isConnectionTrouble, sqlStateOf } from '../../ledger/postgres/no-connection.js';
import { RowLockedError } from '../../ledger/claim/exchange.js';

/**
 * Retries a statement for `patienceMs`, unless its own data is at fault. Claims under one run id and writes under one
 * fencing token give the same answer when they are repeated, so a retry cannot do anything twice.
 */
export function withRetry<T>(patienceMs: number, write: () => Promise<T>): Promise<T> {
  const giveUpAt = performance.now() + patienceMs;
  return write().catch((error: unknown) => again(error, giveUpAt, write));
}

async function again<T>(first: unknown, giveUpAt: number, write: () => Promise<T>): Promise<T> {
  let error = first;
  for (let waitMs = 50; ; waitMs = Math.min(waitMs * 2, 2000)) {
    if (!isWorthAnotherTry(error) || performance.now() + waitMs >= giveUpAt) throw error;
    await pause(waitMs);
    try {
      return await write();
    } catch (next) {
      error = next;
    }
  }
}

/** For how long a claim is retried, in ms. After that the job is deferred: it keeps other jobs of its worker from running. */
export function claimPatienceMs(leaseMs: number): number {
  return Math.min(leaseMs / 2, MAX_CLAIM_PATIENCE_MS);
}

const MAX_CLAIM_PATIENCE_MS = 5_000;

/**
 * For how long recording the end of an attempt is retried, in ms: for as long as its lease, and longer where the lease
 * is short. Under its token it can be recorded until another worker has taken over.
 */
export function recordPatienceMs(leaseMs: number): number {
  return Math.max(leaseMs, MIN_RECORD_PATIENCE_MS);
}

/** Longer than a table is locked by a careful migration, a backup or a restart. */
const MIN_RECORD_PATIENCE_MS = 20_000;

/**
 * Whether the state of Postgres is at fault, and not the statement. Not retried: data exceptions (22), constraint
 * violations (23), wrong or missing statements or objects (42), and errors that are not Postgres's.
 */
function isWorthAnotherTry(error: unknown): boolean {
  if (error instanceof RowLockedError) return true;
  const state = sqlStateOf(error);
  return state === undefined ? isConnectionTrouble(error) : !/^(?:22|23|42)/.test(state);
}
