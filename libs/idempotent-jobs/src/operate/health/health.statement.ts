import { UNDISPATCHED_SINCE } from '../../ledger/undispatched-since.js';
import { statement } from '../../ledger/postgres/statement.js';

/** What a person would want to know of a queue's ledger. */
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
 * How long the operation or letter that waits longest for its queue, where it never was, has been waiting, in ms; null:
 * none waits. Counted from when it could have gone, not from its due time, which every attempt to put it moves.
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
