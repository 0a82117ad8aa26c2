import type { SchemaStep } from './schema-step.js';

/**
 * Why a completed operation has no result although its handler returned one. NOT VALID: the column is new, so no row can
 * break the rule, and looking through all of them would hold up the application.
 */
export const CREATE_RESULTS: SchemaStep = {
  version: 5,
  name: 'results',
  sql: `
ALTER TABLE {schema}.job_outcomes
  ADD COLUMN result_omitted text,
  ADD CONSTRAINT job_outcomes_omitted_result_is_not_there CHECK (
    result_omitted IS NULL OR (
      result_omitted IN ('too_large', 'not_json', 'not_stored', 'redact_failed')
      AND result IS NULL AND status = 'completed'
    )
  ) NOT VALID;
`,
};
