import { setTimeout as pause } from 'node:timers/promises';

/**
 * Tries a statement again for as long as the lease may still be held, unless its own data is at fault. Claims under one
 * worker and writes under a fencing token say the same when asked twice, so trying again cannot do anything twice.
 */
export async function persistently<T>(patienceMs: number, write: () => Promise<T>): Promise<T> {
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
 * Whether it is Postgres's state that is at fault, and not the statement: data exceptions (22), constraint violations
 * (23), statements or objects that are wrong or missing (42) and errors that are not Postgres's stay what they are.
 */
function isWorthAnotherTry(error: unknown): boolean {
  const code = (error as { code?: unknown } | null | undefined)?.code;
  const isSqlState = typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code);
  return isSqlState ? !/^(?:22|23|42)/.test(code) : isConnectionError(error);
}

/** Lost or refused connections, and a server that starts, stops or has no connection to spare. */
export function isConnectionError(error: unknown): boolean {
  const { code, message } = (error ?? {}) as { code?: unknown; message?: unknown };
  if (typeof code === 'string') return /^(?:08|57P0|53)/.test(code) || NODE_CODES.has(code);
  return typeof message === 'string' && /connection|timeout/i.test(message);
}

const NODE_CODES = new Set(['ECONNREFUSED', 'ECONNRESET', 'EPIPE', 'ETIMEDOUT', 'ENOTFOUND', 'EAI_AGAIN']);
