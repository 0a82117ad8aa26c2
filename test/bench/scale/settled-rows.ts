import { Client } from 'pg';
import type { Site } from '../contender.js';
import { KEY_SQL } from './scale-app.js';

/**
 * Copies the one completed operation of a ledger until there are so many, with the keys of the numbers from 1. Then the
 * table is vacuumed and analyzed, as autovacuum would have done.
 */
export async function copyUntil(
  site: Site,
  rows: number,
  overrides: Readonly<Record<string, string>> = {},
): Promise<void> {
  const client = new Client({ connectionString: site.databaseUrl });
  await client.connect();
  try {
    const { rows: columns } = await client.query<{ name: string }>(
      `SELECT column_name AS name FROM information_schema.columns WHERE table_name = 'job_outcomes' AND is_generated = 'NEVER'`,
    );
    const given: Record<string, string> = {
      operation_key: KEY_SQL('number'),
      job_id: `'op-' || md5(number::text)`,
      ...overrides,
    };
    const names = columns.map(({ name }) => name);
    const insert = `INSERT INTO job_outcomes (${names.join(', ')})
      SELECT ${names.map((name) => given[name] ?? `o.${name}`).join(', ')}
      FROM (SELECT * FROM job_outcomes WHERE operation_key = ${KEY_SQL('0')}) o, generate_series($1::integer, $2::integer) number`;
    for (let first = 1; first < rows; first += PORTION)
      await client.query(insert, [first, Math.min(rows, first + PORTION) - 1]);
    await client.query('VACUUM (ANALYZE) job_outcomes');
    await client.query('CHECKPOINT');
  } finally {
    await client.end();
  }
}

/** Rows of one statement, and so of one transaction. */
const PORTION = 250_000;
