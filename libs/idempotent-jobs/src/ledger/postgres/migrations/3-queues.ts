import type { SchemaStep } from './schema-step.js';

/**
 * What the applications say about their queues when they start, for those who work on the ledger without being the
 * application: retention, the command line, the doctor.
 */
export const CREATE_QUEUES: SchemaStep = {
  version: 3,
  name: 'queues',
  sql: `
CREATE TABLE {schema}.job_queues (
  queue                  text        PRIMARY KEY,
  dead_letter_queue      text        NOT NULL,
  -- How long completed operations and resolved letters are kept.
  completed_retention_ms float8      NOT NULL CHECK (completed_retention_ms > 0),
  letter_retention_ms    float8      NOT NULL CHECK (letter_retention_ms > 0),
  -- When an application last said that it hears of its letters by @OnDeadLetter().
  listened_at            timestamptz,
  -- When the youngest of its operations that were pruned had ended, and a little later: whoever is older may be one of them.
  forgotten_until        timestamptz,
  -- The doctor's findings of the application that last started a processor of the queue.
  report                 json,
  reported_at            timestamptz,
  registered_at          timestamptz NOT NULL DEFAULT clock_timestamp()
);
`,
};
