import type { ConnectionPool, PooledConnection } from './connection.js';
import { answered, QUERY_TIMEOUT_MS } from './ledger-pool.js';

/**
 * Does `work` on a connection of the pool, the library's or the application's. When `work` fails, the connection is
 * closed, because an answer may still be under way on it.
 *
 * @throws NoAnswerError when the pool has no connection within 10 s
 */
export async function onConnectionOf<T>(
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
