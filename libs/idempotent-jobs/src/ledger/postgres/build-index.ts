import { STEP_MS, TABLE_LOCK_MS } from './migrations.js';
import { partitionsOf } from './partitions.js';
import { type Ask, literal } from './sql.js';

/**
 * Builds an index that a step lists, without blocking writers. What an interrupted build has left is finished, or dropped
 * where it cannot be used.
 *
 * Postgres builds no index of a partitioned table concurrently. So the table gets one that is not valid yet, and each
 * partition builds its own and hands it in; with the last one the table's becomes valid. The locks of the table and of the
 * partitions' new indexes are short, and are not waited for longer than a step waits for its own.
 */
export async function buildIndex(ask: Ask, schema: string, index: string): Promise<void> {
  const [, name = '', table = '', definition = ''] = DECLARED.exec(index) ?? [];
  if ((await isValid(ask, schema, name)) === true) return;
  const partitions = await partitionsOf(ask, schema, table);
  if (partitions.length === 0) return buildOn(ask, schema, { name, table, definition });
  await waitAtMost(ask, TABLE_LOCK_MS);
  await ask(`CREATE INDEX IF NOT EXISTS ${name} ON ONLY {schema}.${table} ${definition}`);
  for (const partition of partitions) {
    const own = name.replace(table, partition);
    await buildOn(ask, schema, { name: own, table: partition, definition });
    await waitAtMost(ask, TABLE_LOCK_MS);
    await ask(`ALTER INDEX {schema}.${name} ATTACH PARTITION {schema}.${own}`);
  }
}

const DECLARED = /^INDEX (\w+) ON \{schema\}\.(\w+) ([^]+)$/;

interface Index {
  readonly name: string;
  readonly table: string;
  readonly definition: string;
}

/** Waits for older transactions without blocking any other. */
async function buildOn(ask: Ask, schema: string, { name, table, definition }: Index): Promise<void> {
  const found = await isValid(ask, schema, name);
  if (found === true) return;
  await waitAtMost(ask, 0);
  if (found === false) await ask(`DROP INDEX CONCURRENTLY {schema}.${name}`, STEP_MS);
  await ask(`CREATE INDEX CONCURRENTLY ${name} ON {schema}.${table} ${definition}`, STEP_MS);
}

/** Undefined when there is no such index. */
async function isValid(ask: Ask, schema: string, name: string): Promise<boolean | undefined> {
  const [found] = await ask<{ is_valid: boolean }>(
    `SELECT i.indisvalid AS is_valid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
     JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = ${literal(schema)} AND c.relname = ${literal(name)}`,
  );
  return found?.is_valid;
}

/** How long the statements that follow wait for a lock. 0: as long as it takes. */
async function waitAtMost(ask: Ask, ms: number): Promise<void> {
  await ask(`SET lock_timeout = ${ms}`);
}
