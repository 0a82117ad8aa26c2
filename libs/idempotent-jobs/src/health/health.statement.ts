import { statement } from '../postgres/statement.js';

/** What a person would want to know of a queue's ledger. Parameters: queue, how many letters and doubts to count at most. */
export const QUEUE_STATE = statement(
  'queue_state',
  `
SELECT
  (SELECT count(*) FROM (
     SELECT FROM {schema}.dead_letters WHERE queue = $1 AND resolved_at IS NULL LIMIT $2) AS open)::integer AS dead_letters,
  (SELECT count(*) FROM (
     SELECT FROM {schema}.job_outcomes WHERE queue = $1 AND status = 'in_doubt' LIMIT $2) AS doubted)::integer AS in_doubt
`,
);

/** How long what should have been dispatched has been waiting for it, in ms; null: nothing is overdue. */
export const DISPATCH_LAG = statement(
  'dispatch_lag',
  `
SELECT GREATEST(
  (SELECT EXTRACT(EPOCH FROM clock_timestamp() - min(dispatch_due_at)) FROM {schema}.job_outcomes WHERE dispatch_due_at <= clock_timestamp()),
  (SELECT EXTRACT(EPOCH FROM clock_timestamp() - min(dispatch_due_at)) FROM {schema}.dead_letters WHERE dispatch_due_at <= clock_timestamp())
)::float8 * 1000 AS lag_ms
`,
);
