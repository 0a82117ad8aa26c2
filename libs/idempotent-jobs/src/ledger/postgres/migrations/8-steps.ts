import type { SchemaStep } from './schema-step.js';

/**
 * Gives steps that are known by their old keys, `<operation>/<step>`, their columns and their new keys, with all that names
 * them. `which` says which of them.
 *
 * A keyed step's idempotency key changes with its key. One that may have had its effect must not be repeated under another:
 * for it the time in which it may be is over.
 */
const rename = (which: string): string => `
WITH old AS MATERIALIZED (
  SELECT tenant_id, operation_key AS old_key, step_of,
         substr(operation_key, length(step_of) + 2) AS step,
         step_of || U&'\\001F' || replace(substr(operation_key, length(step_of) + 2), '/', U&'\\001F') AS new_key
  FROM {schema}.job_outcomes WHERE step_of IS NOT NULL AND step IS NULL
  ${which}
), attempts AS (
  UPDATE {schema}.job_attempts a SET operation_key = old.new_key
  FROM old WHERE a.tenant_id = old.tenant_id AND a.operation_key = old.old_key
), letters AS (
  UPDATE {schema}.dead_letters l SET operation_key = old.new_key, step_of = old.step_of, step = old.step
  FROM old WHERE l.tenant_id = old.tenant_id AND l.operation_key = old.old_key
)
UPDATE {schema}.job_outcomes o SET
  operation_key    = old.new_key,
  step             = old.step,
  repeatable_until = CASE WHEN o.effect = 'keyed' AND (o.status = 'running' OR o.doubt_since IS NOT NULL)
                          THEN LEAST(o.repeatable_until, clock_timestamp()) ELSE o.repeatable_until END
FROM old WHERE o.tenant_id = old.tenant_id AND o.operation_key = old.old_key
RETURNING true
`;

/**
 * Steps are told by columns, and their keys are made so that no key of a producer can be one: the operation's key and the
 * step's name stand around a control character (U+001F), which keys must not hold.
 */
export const CREATE_STEPS: SchemaStep = {
  version: 8,
  name: 'steps',
  before: `
ALTER TABLE {schema}.job_outcomes ADD COLUMN IF NOT EXISTS step text;
ALTER TABLE {schema}.dead_letters
  -- The operation that a letter's step belongs to, and the step's name.
  ADD COLUMN IF NOT EXISTS step_of text,
  ADD COLUMN IF NOT EXISTS step    text;
`,
  batch: rename('LIMIT 5000 FOR UPDATE SKIP LOCKED'),
  sql: `
ALTER TABLE {schema}.job_outcomes
  ADD CONSTRAINT job_outcomes_steps_are_whole CHECK ((step_of IS NULL) = (step IS NULL)) NOT VALID;
-- What came in between, or was held.
${rename('')};
`,
};
