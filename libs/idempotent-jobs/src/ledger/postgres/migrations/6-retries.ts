import type { SchemaStep } from './schema-step.js';

/**
 * Why an operation was tried again or not, under which policy, and whether what it completed with is the real thing. All
 * columns are new and may be null, so that the step changes no row.
 */
export const CREATE_RETRIES: SchemaStep = {
  version: 6,
  name: 'retries',
  sql: `
ALTER TABLE {schema}.job_outcomes
  -- The name of the retry policy that its producer asked for; null: the processor's.
  ADD COLUMN retry_policy text,
  -- The last wait before another attempt, which decorrelated jitter grows from.
  ADD COLUMN delay_ms     float8,
  -- Which dependency a fallback answered for, and why; null: none did.
  ADD COLUMN degraded     text,
  -- The trace of its last attempt that did not complete, for the next one to link to.
  ADD COLUMN last_trace   text;
ALTER TABLE {schema}.job_attempts
  -- Why the operation was tried again, given up, or left in doubt.
  ADD COLUMN decision text;
`,
  // What was never on its queue, which health and metrics ask for: few rows, next to all that wait on their queue.
  indexes: [
    `INDEX job_outcomes_undispatched ON {schema}.job_outcomes (created_at) WHERE dispatch_due_at IS NOT NULL AND dispatches = 0`,
    `INDEX dead_letters_undispatched ON {schema}.dead_letters (created_at) WHERE dispatch_due_at IS NOT NULL AND dispatches = 0`,
  ],
};
