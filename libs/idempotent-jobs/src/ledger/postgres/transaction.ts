import { messageOf } from '../../operation/thrown.js';
import type { Queryable } from './connection.js';
import type { Database } from './database.js';
import type { Lane } from './lanes.js';
import { NoConnectionError } from './no-connection.js';

/** Does `work` in a transaction on a connection of the library's own. Rolls back when it throws. */
export async function inTransaction<T>(
  database: Database,
  work: (connection: Queryable) => Promise<T>,
  lane: Lane = 'other',
): Promise<T> {
  const connection = await database.connect(lane);
  let broken: Error | undefined;
  try {
    await connection.query({ text: 'BEGIN' });
    const result = await work(connection);
    await connection.query({ text: 'COMMIT' });
    return result;
  } catch (error) {
    // A connection that does not answer cannot roll back; Postgres does that when it is closed.
    broken =
      error instanceof NoConnectionError ? error : await failureOf(connection.query({ text: 'ROLLBACK' }));
    throw error;
  } finally {
    // A connection that could not roll back is closed, so that no other user finds its transaction open.
    connection.release(broken);
  }
}

async function failureOf(work: Promise<unknown>): Promise<Error | undefined> {
  try {
    await work;
    return undefined;
  } catch (error) {
    return error instanceof Error ? error : new Error(messageOf(error));
  }
}
