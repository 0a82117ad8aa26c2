import type { Database, Queryable } from './database.js';
import type { Statement } from './statement.js';

/**
 * Hands the rows of a SELECT to `work`, a page at a time, as they were when it was asked: what changes meanwhile neither
 * hides rows nor shows them twice. The server keeps them (WITH HOLD), so no transaction stays open, and what `work` does
 * on the connection commits by itself. However many rows there are, this process holds one page of them.
 */
export async function inPages(
  database: Database,
  select: Statement,
  values: unknown[],
  work: (rows: any[], connection: Queryable) => Promise<void>,
): Promise<void> {
  const connection = await database.pool.connect();
  let broken: Error | undefined;
  const onLost = (error: Error): void => {
    broken = error;
  };
  connection.on('error', onLost);
  try {
    // Without the time limit of other statements: it reads a whole table.
    const text = `DECLARE idempotent_jobs_pages NO SCROLL CURSOR WITH HOLD FOR ${database.textOf(select)}`;
    await connection.query({ text, values });
    for (;;) {
      const { rows } = await connection.query(`FETCH ${PAGE_SIZE} FROM idempotent_jobs_pages`);
      if (rows.length === 0) break;
      await work(rows, connection);
    }
    await connection.query('CLOSE idempotent_jobs_pages');
  } catch (error) {
    // The cursor goes with the connection.
    broken = error as Error;
    throw error;
  } finally {
    connection.removeListener('error', onLost);
    connection.release(broken);
  }
}

/** Few enough for statements that are over in milliseconds and lock little, many enough to make round trips negligible. */
const PAGE_SIZE = 1000;
