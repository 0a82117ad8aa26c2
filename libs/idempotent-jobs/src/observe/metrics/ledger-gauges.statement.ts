import type { DeadLetterReason } from '../../operation/reasons.js';
import { UNDISPATCHED_SINCE } from '../../ledger/undispatched-since.js';
import { statement } from '../../ledger/postgres/statement.js';

/** A row of {@link LEDGER_GAUGES}: how many there are, and how old the oldest is, in seconds. */
export type LedgerGaugesRow =
  | ({ readonly what: 'letters'; readonly queue: string; readonly reason: DeadLetterReason } & Counted)
  | ({ readonly what: 'doubts'; readonly queue: string } & Counted)
  | ({ readonly what: 'undispatched' } & Counted);

interface Counted {
  readonly many: number;
  /** Null when there is none. */
  readonly oldest_age: number | null;
}

/**
 * Counts what waits for the operator or for its queue, over all queues that the ledger knows. Each part is read from a
 * partial index: operations that are settled or on their queue, however many, are not read. A redriven operation has been
 * waiting for its queue since its letter was closed. `undispatched` always has one row; queues without letters or doubts
 * have none.
 */
export const LEDGER_GAUGES = statement(
  'ledger_gauges',
  `
WITH waiting AS (
  SELECT 'letters' AS what, queue, reason, created_at AS since
  FROM {schema}.dead_letters WHERE resolved_at IS NULL
  UNION ALL
  SELECT 'doubts', queue, NULL, doubt_since
  FROM {schema}.job_outcomes WHERE status = 'in_doubt'
), undispatched AS (
  SELECT ${UNDISPATCHED_SINCE} AS since FROM {schema}.job_outcomes o WHERE dispatch_due_at IS NOT NULL AND dispatches = 0
  UNION ALL
  SELECT created_at FROM {schema}.dead_letters WHERE dispatch_due_at IS NOT NULL AND dispatches = 0
)
SELECT what, queue, reason, count(*)::integer AS many,
  EXTRACT(EPOCH FROM clock_timestamp() - min(since))::float8 AS oldest_age
FROM waiting GROUP BY what, queue, reason
UNION ALL
SELECT 'undispatched', NULL, NULL, count(*)::integer, EXTRACT(EPOCH FROM clock_timestamp() - min(since))::float8
FROM undispatched
`,
);
