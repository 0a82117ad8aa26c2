import { type Database, QUERY_TIMEOUT_MS, type Queryable } from './database.js';

/** Does `work` in a transaction of its own, on its connection. Rolls back when it throws. */
export async function inTransaction<T>(
  database: Database,
  work: (connection: Queryable) => Promise<T>,
): Promise<T> {
  const connection = await database.pool.connect();
  let broken: Error | undefined;
  // A connection that is lost between two statements tells of it as an event, which nobody hearing ends the process.
  const onLost = (error: Error): void => {
    broken = error;
  };
  connection.on('error', onLost);
  try {
    await connection.query(bounded('BEGIN'));
    const result = await work(connection);
    await connection.query(bounded('COMMIT'));
    return result;
  } catch (error) {
    // A statement without an answer blocks all that follow on its connection: nothing can be rolled back there.
    const isSilent = (error as { message?: unknown } | null)?.message === 'Query read timeout';
    if (isSilent) onLost(error as Error);
    else await connection.query(bounded('ROLLBACK')).catch(onLost);
    throw error;
  } finally {
    connection.removeListener('error', onLost);
    // A connection that could not roll back is destroyed: nobody must find its transaction open.
    connection.release(broken);
  }
}

function bounded(text: string): { text: string; values: unknown[]; query_timeout: number } {
  return { text, values: [], query_timeout: QUERY_TIMEOUT_MS };
}
