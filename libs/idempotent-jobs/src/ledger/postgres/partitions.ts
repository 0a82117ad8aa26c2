import type { OptionChecks } from '../../option-checks/option-checks.js';
import type { Ask } from './migrations.js';

/**
 * The least and the most partitions of `job_outcomes`. One alone would only cost. A statement about operations of many
 * tenants locks each of their partitions and its dozen indexes, and Postgres has room for 64 locks of each connection
 * unless `max_locks_per_transaction` says otherwise: with more than 64 partitions, busy connections would run out of it.
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

/** How many partitions `job_outcomes` has; 0 for an ordinary table. */
export async function countPartitions(ask: Ask): Promise<number> {
  const [found] = await ask<{ partitions: number }>(
    `SELECT count(*)::integer AS partitions FROM pg_inherits WHERE inhparent = '{schema}.job_outcomes'::regclass`,
  );
  return found?.partitions ?? 0;
}

/**
 * Says that a ledger has not the partitions that were asked for. Undefined when it has, or none were asked for: partitions
 * are made with the table only, and the ledger works in the same way whether there are any.
 */
export function otherPartitions(
  schema: string,
  found: number,
  asked: number | undefined,
): string | undefined {
  if (asked === undefined || asked === found) return undefined;
  const is = found === 0 ? 'is one ordinary table' : `has ${found} partitions`;
  return `The table job_outcomes in schema "${schema}" ${is}, but ${asked} partitions are asked for. Its rows are never moved by themselves. Move them as docs/scaling.md says ("Move a ledger into partitions"), or ${found === 0 ? 'leave "partitions" out' : `ask for ${found}`}.`;
}
