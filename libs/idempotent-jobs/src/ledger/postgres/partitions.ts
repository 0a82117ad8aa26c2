import type { OptionChecks } from '../../option-checks/option-checks.js';
import { type Ask, inSchema, literal } from './sql.js';

/**
 * The least and the most partitions of `job_outcomes`. A single one would cost something and help nothing. A claim locks every
 * partition, and the ten indexes of each while it is planned, and Postgres has room for 64 locks per connection unless
 * `max_locks_per_transaction` says more: more than 16 partitions need that setting, and more than 64 would only make each
 * statement dearer.
 */
export const PARTITIONS = [2, 64] as const;

/** Checks a number of partitions. Undefined stands for one ordinary table. */
export function readPartitions(checks: OptionChecks, partitions: number | undefined): number | undefined {
  const [least, most] = PARTITIONS;
  if (partitions === undefined) return undefined;
  if (!Number.isInteger(partitions) || partitions < least || partitions > most)
    checks.fail(
      'partitions',
      partitions,
      `a whole number from ${least} to ${most}, or left out for one ordinary table`,
    );
  return partitions;
}

/**
 * Says that a ledger has not the partitions that were asked for. Undefined when it has, when none were asked for, and when
 * there is no table yet: partitions are made with it only, and the ledger works in the same way whether there are any.
 */
export async function partitionsAmiss(
  ask: Ask,
  schema: string,
  asked: number | undefined,
): Promise<string | undefined> {
  if (asked === undefined) return undefined;
  const [table] = await ask<{ partitions: number }>(
    `SELECT (SELECT count(*) FROM pg_inherits WHERE inhparent = oid)::integer AS partitions
     FROM pg_class WHERE oid = to_regclass(${tableName(schema, 'job_outcomes')})`,
  );
  if (table === undefined || table.partitions === asked) return undefined;
  const { partitions: found } = table;
  const is = found === 0 ? 'is one ordinary table' : `has ${found} partitions`;
  return `The table job_outcomes in schema "${schema}" ${is}, but ${asked} partitions are asked for. Its rows are never moved by themselves. Move them as docs/scaling.md says ("Move a ledger into partitions"), or ${found === 0 ? 'leave "partitions" out' : `ask for ${found}`}.`;
}

/** The names of a table's partitions. None for an ordinary table. */
export async function partitionsOf(ask: Ask, schema: string, table: string): Promise<string[]> {
  const rows = await ask<{ name: string }>(
    `SELECT c.relname AS name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
     WHERE i.inhparent = to_regclass(${tableName(schema, table)}) ORDER BY c.relname`,
  );
  return rows.map(({ name }) => name);
}

/** A table's name as text for Postgres to look up. */
function tableName(schema: string, table: string): string {
  return literal(inSchema(schema, `{schema}.${table}`));
}
