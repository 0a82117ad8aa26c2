import type { QueueDepth } from './queue-contents.js';
import type { Database } from '../ledger/postgres/database.js';
import { statement } from '../ledger/postgres/statement.js';

/**
 * The operations of queues that BullMQ holds in jobs with others, and in how many jobs. Read from the partial index of what
 * is not settled.
 */
const BUNDLED = statement(
  'bundled_operations',
  `
SELECT
  queue,
  count(*) FILTER (WHERE status = 'pending')::integer AS waiting,
  count(DISTINCT bundle_id) FILTER (WHERE status = 'pending')::integer AS "waitingBundles",
  count(*) FILTER (WHERE status = 'running')::integer AS active,
  count(DISTINCT bundle_id) FILTER (WHERE status = 'running')::integer AS "activeBundles"
FROM {schema}.job_outcomes
WHERE dispatch_due_at IS NOT NULL AND bundle_id IS NOT NULL AND status IN ('pending', 'running') AND queue = ANY (:queues)
GROUP BY queue
`,
);

/** What BullMQ counts as jobs and people as operations. */
export interface BundledOperations {
  readonly queue: string;
  readonly waiting: number;
  readonly waitingBundles: number;
  readonly active: number;
  readonly activeBundles: number;
}

/** Queues without bundles have no entry. */
export async function readBundled(
  database: Database,
  queues: readonly string[],
): Promise<ReadonlyMap<string, BundledOperations>> {
  const rows = await database.run<BundledOperations>(BUNDLED.with({ queues }));
  return new Map(rows.map((row) => [row.queue, row]));
}

/**
 * A queue's depth in operations. A bundle that a worker holds is both active and, with what it has not begun, waiting, so
 * that the sum may be off by the bundles that are being worked off.
 */
export function inOperations(depth: QueueDepth, bundled: BundledOperations | undefined): QueueDepth {
  if (bundled === undefined) return depth;
  const { waiting, waitingBundles, active, activeBundles } = bundled;
  return {
    ...depth,
    waiting: Math.max(0, depth.waiting - waitingBundles) + waiting,
    active: Math.max(0, depth.active - activeBundles) + active,
  };
}
