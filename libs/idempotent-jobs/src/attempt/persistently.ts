import { setTimeout as pause } from 'node:timers/promises';

/**
 * Tries a write again while Postgres is out of reach, for as long as the lease may still be held. Writes under a
 * fencing token say the same when asked twice, so trying again cannot write twice. Any other error is final.
 */
export async function persistently<T>(patienceMs: number, write: () => Promise<T>): Promise<T> {
  const giveUpAt = performance.now() + patienceMs;
  for (let waitMs = 50; ; waitMs = Math.min(waitMs * 2, 2000)) {
    try {
      return await write();
    } catch (error) {
      if (!isConnectionError(error) || performance.now() + waitMs >= giveUpAt) throw error;
    }
    await pause(waitMs);
  }
}

/** Lost or refused connections, and a server that starts, stops or has no connection to spare. */
export function isConnectionError(error: unknown): boolean {
  const { code, message } = (error ?? {}) as { code?: unknown; message?: unknown };
  if (typeof code === 'string') return /^(?:08|57P0|53)/.test(code) || NODE_CODES.has(code);
  return typeof message === 'string' && /connection|timeout exceeded when trying to connect/i.test(message);
}

const NODE_CODES = new Set(['ECONNREFUSED', 'ECONNRESET', 'EPIPE', 'ETIMEDOUT', 'ENOTFOUND', 'EAI_AGAIN']);
