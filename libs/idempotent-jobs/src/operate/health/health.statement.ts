import { UNDISPATCHED_SINCE } from '../../ledger/undispatched-since.js';
import { statement } from '../../ledger/postgres/statement.js';

/** Counts a queue's open letters and operations in doubt, each up to a limit. */
export const QUEUE_STATE = statement(
  'queue_state',
  `
SELECT
  (SELECT count(*) FROM (
     SELECT FROM {schema}.dead_letters WHERE queue = :queue AND resolved_at IS NULL LIMIT :limit) AS open)::integer AS dead_letters,
  (SELECT count(*) FROM (
     SELECT FROM {schema}.job_outcomes WHERE queue = :queue AND status = 'in_doubt' LIMIT :limit) AS doubted)::integer AS in_doubt
`,
);

/**
 * How long the longest waiting operation or letter that was never put on its queue has been waiting, in ms. Null when
 * none waits. Counted from when it could first have been put there, not from its due time, which every attempt moves.
 */
export const DISPATCH_LAG = statement(
  'dispatch_lag',
  `
SELECT GREATEST(
  (SELECT EXTRACT(EPOCH FROM clock_timestamp() - min(${UNDISPATCHED_SINCE})) FROM {schema}.job_outcomes o
   WHERE dispatch_due_at IS NOT NULL AND dispatches = 0),
  (SELECT EXTRACT(EPOCH FROM clock_timestamp() - min(created_at)) FROM {schema}.dead_letters
   WHERE dispatch_due_at IS NOT NULL AND dispatches = 0)
)::float8 * 1000 AS lag_ms
`,
);
