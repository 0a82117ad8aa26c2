import { Client } from 'pg';
import type { Site } from '../contender.js';

/** The table that handlers write to which have something to write. */
export async function makeEffects({ databaseUrl }: Site): Promise<void> {
  const client = new Client({ connectionString: databaseUrl });
  await client.connect();
  await client.query('CREATE TABLE effects (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, what text)');
  await client.end();
}

/** Writes a row, through a connection of `pg` or an EntityManager of TypeORM. */
export async function writeEffect(on: { query(sql: string): Promise<unknown> }): Promise<{ ok: true }> {
  await on.query(`INSERT INTO effects (what) VALUES ('charge')`);
  return { ok: true };
}
