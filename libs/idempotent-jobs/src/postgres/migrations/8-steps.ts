import type { SchemaStep } from '../migrations.js';

/**
 * Steps are told by columns, and their keys are made so that no key of a producer can be one: the operation's key and the
 * step's name stand around a control character (U+001F), which keys must not hold. Steps that are there already are
 * renamed with all that names them.
 */
export const CREATE_STEPS: SchemaStep = {
  version: 8,
  name: 'steps',
  sql: `
ALTER TABLE {schema}.job_outcomes ADD COLUMN step text;
ALTER TABLE {schema}.dead_letters
  -- The operation that a letter's step belongs to, and the step's name.
  ADD COLUMN step_of text,
  ADD COLUMN step    text;
CREATE TEMPORARY TABLE idempotent_jobs_renamed ON COMMIT DROP AS
  SELECT tenant_id, operation_key AS old_key, step_of,
         substr(operation_key, length(step_of) + 2) AS step,
         step_of || U&'\\001F' || replace(substr(operation_key, length(step_of) + 2), '/', U&'\\001F') AS new_key
  FROM {schema}.job_outcomes WHERE step_of IS NOT NULL;
UPDATE {schema}.job_attempts a SET operation_key = r.new_key
  FROM idempotent_jobs_renamed r WHERE a.tenant_id = r.tenant_id AND a.operation_key = r.old_key;
UPDATE {schema}.dead_letters l SET operation_key = r.new_key, step_of = r.step_of, step = r.step
  FROM idempotent_jobs_renamed r WHERE l.tenant_id = r.tenant_id AND l.operation_key = r.old_key;
UPDATE {schema}.job_outcomes o SET operation_key = r.new_key, step = r.step
  FROM idempotent_jobs_renamed r WHERE o.tenant_id = r.tenant_id AND o.operation_key = r.old_key;
ALTER TABLE {schema}.job_outcomes
  ADD CONSTRAINT job_outcomes_steps_are_whole CHECK ((step_of IS NULL) = (step IS NULL)) NOT VALID;
`,
};
