import type { Database, Queryable } from './database.js';

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
    await connection.query('BEGIN');
    const result = await work(connection);
    await connection.query('COMMIT');
    return result;
  } catch (error) {
    await connection.query('ROLLBACK').catch(onLost);
    throw error;
  } finally {
    connection.removeListener('error', onLost);
    // A connection that could not roll back is destroyed: nobody must find its transaction open.
    connection.release(broken);
  }
}
