import { CALLS } from '../../../operation/calls.js';
import type { SchemaStep } from './schema-step.js';

/**
 * Doubt as a state of its own: when the service is asked next whether an effect happened, and by whom. An operation that
 * is being asked about is `in_doubt` under a lease, so that one worker asks at a time and only under its token.
 */
export const CREATE_DOUBT: SchemaStep = {
  version: 4,
  name: 'doubt',
  sql: `
ALTER TABLE {schema}.job_outcomes
  -- When the service is asked next; null: nobody asks.
  ADD COLUMN reconcile_due_at timestamptz,
  -- When the last attempt that left a doubt had ended, or was found to have vanished.
  ADD COLUMN doubted_at       timestamptz,
  -- The operation whose handler runs it as a step; no job carries it.
  ADD COLUMN step_of          text,
  DROP CONSTRAINT job_outcomes_running_has_lease,
  ADD CONSTRAINT job_outcomes_running_has_lease CHECK (CASE status
    WHEN 'running' THEN
      lease_expires_at IS NOT NULL AND run_id IS NOT NULL AND started_at IS NOT NULL AND fencing_token > 0 AND attempts > 0
    WHEN 'in_doubt' THEN
      lease_expires_at IS NULL OR (reconcile_due_at IS NOT NULL AND run_id IS NOT NULL AND fencing_token > 0)
    ELSE lease_expires_at IS NULL
  END),
  ADD CONSTRAINT job_outcomes_only_doubt_is_reconciled CHECK (reconcile_due_at IS NULL OR status = 'in_doubt'),
  ADD CONSTRAINT job_outcomes_steps_have_no_payload CHECK (step_of IS NULL OR payload IS NULL),
  DROP CONSTRAINT job_outcomes_only_open_is_dispatched,
  ADD CONSTRAINT job_outcomes_only_open_is_dispatched CHECK (
    dispatch_due_at IS NULL OR (
      payload IS NOT NULL AND (status IN ('pending', 'running', 'retrying') OR reconcile_due_at IS NOT NULL))
  );
ALTER TABLE {schema}.job_outcomes
  DROP CONSTRAINT job_outcomes_only_settled_expires,
  -- A call that failed is nobody's to run again, and is forgotten like one that completed.
  ADD CONSTRAINT job_outcomes_only_settled_expires CHECK (
    expires_at IS NULL OR status IN ('completed', 'dead') OR (status = 'retrying' AND queue = '${CALLS}')
  );

-- What was asked, and answered, about an attempt stands beside it.
ALTER TABLE {schema}.job_attempts DROP CONSTRAINT job_attempts_pkey;
ALTER TABLE {schema}.job_attempts ADD PRIMARY KEY (tenant_id, operation_key, fencing_token, kind);

ALTER TABLE {schema}.job_actions
  DROP CONSTRAINT job_actions_action_check,
  ADD CONSTRAINT job_actions_action_check CHECK (action IN (
    'redrive', 'redrive_edited', 'redrive_many', 'redrive_stopped', 'redrive_cancelled', 'redrive_completed',
    'discard', 'resolve_applied', 'resolve_not_applied', 'settle_applied', 'settle_not_applied', 'erase'
  ));
`,
  indexes: [
    `INDEX job_outcomes_calls_running ON {schema}.job_outcomes (lease_expires_at) WHERE (queue = '${CALLS}' OR step_of IS NOT NULL) AND lease_expires_at IS NOT NULL`,
    `INDEX job_outcomes_calls_doubtful ON {schema}.job_outcomes (repeatable_until) WHERE (queue = '${CALLS}' OR step_of IS NOT NULL) AND status = 'retrying' AND doubt_since IS NOT NULL`,
    `INDEX job_outcomes_steps ON {schema}.job_outcomes (tenant_id, step_of) WHERE step_of IS NOT NULL`,
  ],
};
