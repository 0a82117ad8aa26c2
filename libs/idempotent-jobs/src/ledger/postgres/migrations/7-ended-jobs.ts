import { CALLS } from '../../../operation/calls.js';
import type { SchemaStep } from './schema-step.js';

/**
 * Finds operations that only their BullMQ job carries (the ledger has no payload to put again), by when their job should
 * have been delivered: whoever looks after jobs that have ended without them reads a page of those that are due.
 */
export const FIND_ENDED_JOBS: SchemaStep = {
  version: 7,
  name: 'ended-jobs',
  sql: 'SELECT',
  indexes: [
    `INDEX job_outcomes_carried_by_job ON {schema}.job_outcomes (
  queue, COALESCE(lease_expires_at, reconcile_due_at, available_at, created_at), tenant_id, operation_key
) WHERE payload IS NULL AND step_of IS NULL AND queue <> '${CALLS}'
    AND (status IN ('pending', 'running', 'retrying') OR reconcile_due_at IS NOT NULL)`,
  ],
};
