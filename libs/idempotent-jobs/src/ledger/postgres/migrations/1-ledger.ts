import type { SchemaStep } from './schema-step.js';

/**
 * The three tables of the ledger. `job_outcomes` is intent, lease, result and outbox in one row per operation;
 * `dead_letters` keeps the evidence of deliveries that were given up on; `job_attempts` what each attempt that did not
 * succeed saw. The CHECK constraints restate the state machine, so that no statement, ours or an operator's, can leave
 * a row in a state the code does not know.
 *
 * `json` instead of `jsonb` for payloads and results: it keeps the text as it was written and costs no parsing.
 */
export const CREATE_LEDGER: SchemaStep = {
  version: 1,
  name: 'ledger',
  sql: `
CREATE TABLE {schema}.job_outcomes (
  tenant_id         text        NOT NULL CHECK (char_length(tenant_id) BETWEEN 1 AND 255),
  operation_key     text        NOT NULL CHECK (char_length(operation_key) BETWEEN 1 AND 400),
  queue             text        NOT NULL,
  job_name          text        NOT NULL,
  -- The BullMQ job that carries the operation now; a redrive gets another.
  job_id            text        NOT NULL,
  -- What the operation was asked to do: SHA-256 over tenant, job name and payload.
  fingerprint       text        NOT NULL CHECK (char_length(fingerprint) = 64),
  status            text        NOT NULL CHECK (status IN ('pending', 'running', 'retrying', 'in_doubt', 'completed', 'dead')),
  -- The effect that the latest attempt declared.
  effect            text                 CHECK (effect IN ('natural', 'transactional', 'keyed', 'reconciled', 'unrepeatable')),
  -- Grows with every claim; every write that leaves 'running' names it.
  fencing_token     bigint      NOT NULL DEFAULT 0 CHECK (fencing_token >= 0),
  run_id         text,
  lease_expires_at  timestamptz,
  -- attempts counts starts, failures counts recorded ends; their difference shows crashes.
  attempts          integer     NOT NULL DEFAULT 0 CHECK (attempts >= 0),
  failures          integer     NOT NULL DEFAULT 0 CHECK (failures BETWEEN 0 AND attempts),
  -- Until when an attempt may follow one whose effect may have happened.
  repeatable_until  timestamptz,
  -- Since when the effect may have happened without a record of it.
  doubt_since       timestamptz,
  -- The total time budget's end.
  deadline_at       timestamptz,
  -- Not to be run before.
  available_at      timestamptz,
  priority          integer,
  -- Kept until settled when the ledger owns delivery.
  payload           json,
  result            json,
  error             json,
  -- When it must next be put on its queue; null: nothing is due.
  dispatch_due_at   timestamptz,
  dispatches        integer     NOT NULL DEFAULT 0,
  trace_context     json,
  created_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
  started_at        timestamptz,
  settled_at        timestamptz,
  expires_at        timestamptz,

  CONSTRAINT job_outcomes_operation_unique UNIQUE (tenant_id, operation_key),
  CONSTRAINT job_outcomes_running_has_lease CHECK (
    (status = 'running') = (lease_expires_at IS NOT NULL)
    AND (status <> 'running' OR (run_id IS NOT NULL AND started_at IS NOT NULL AND fencing_token > 0 AND attempts > 0))
  ),
  CONSTRAINT job_outcomes_settled_has_time CHECK ((status IN ('completed', 'dead')) = (settled_at IS NOT NULL)),
  CONSTRAINT job_outcomes_only_completed_has_result CHECK (result IS NULL OR status = 'completed'),
  CONSTRAINT job_outcomes_only_open_is_dispatched CHECK (
    dispatch_due_at IS NULL OR (status IN ('pending', 'running', 'retrying') AND payload IS NOT NULL)
  ),
  CONSTRAINT job_outcomes_only_settled_expires CHECK (expires_at IS NULL OR status IN ('completed', 'dead'))
);
-- The operation is the row's identity, also for logical replication; a surrogate key would be a second index to write.
ALTER TABLE {schema}.job_outcomes REPLICA IDENTITY USING INDEX job_outcomes_operation_unique;

CREATE INDEX job_outcomes_dispatch_due ON {schema}.job_outcomes (dispatch_due_at) WHERE dispatch_due_at IS NOT NULL;
CREATE INDEX job_outcomes_expiring ON {schema}.job_outcomes (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX job_outcomes_in_doubt ON {schema}.job_outcomes (queue, doubt_since) WHERE status = 'in_doubt';

CREATE TABLE {schema}.dead_letters (
  id              uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
  -- Null when the delivery had no valid identity.
  tenant_id       text,
  operation_key   text,
  queue           text        NOT NULL,
  job_name        text        NOT NULL,
  job_id          text        NOT NULL,
  reason          text        NOT NULL CHECK (reason IN (
    'permanent_error', 'retries_exhausted', 'time_budget_exceeded', 'deferred_too_long', 'crash_loop', 'payload_invalid',
    'identity_missing', 'tenant_mismatch', 'idempotency_conflict', 'in_doubt', 'expired', 'manual'
  )),
  payload         json,
  -- Of the request; where there is no identity, of the job's time and data.
  fingerprint     text        NOT NULL,
  error           json,
  attempts        integer     NOT NULL DEFAULT 0,
  failures        integer     NOT NULL DEFAULT 0,
  fencing_token   bigint      NOT NULL DEFAULT 0,
  doubt_since     timestamptz,
  run_id       text,
  -- Versions of library and Node that gave up.
  versions        json,
  trace_context   json,
  created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
  -- When it must be put on the dead-letter queue; null: done.
  dispatch_due_at timestamptz          DEFAULT clock_timestamp(),
  resolved_at     timestamptz,
  resolution      text                 CHECK (resolution IN ('redriven', 'discarded', 'applied', 'not_applied', 'completed')),
  actor           text,
  note            text,

  CONSTRAINT dead_letters_identity_is_whole CHECK ((tenant_id IS NULL) = (operation_key IS NULL)),
  CONSTRAINT dead_letters_resolution_is_whole CHECK (
    (resolved_at IS NULL) = (resolution IS NULL) AND (resolved_at IS NULL OR (actor IS NOT NULL AND note IS NOT NULL))
  )
);
-- One open letter per dead operation. A conflicting request is not the operation's own death, hence apart.
CREATE UNIQUE INDEX dead_letters_one_open_per_operation ON {schema}.dead_letters (tenant_id, operation_key)
  WHERE resolved_at IS NULL AND reason <> 'idempotency_conflict';
-- One open letter per request of a job, for those without an identity and for conflicts. Job ids are used again.
CREATE UNIQUE INDEX dead_letters_one_open_per_delivery ON {schema}.dead_letters (queue, job_id, reason, fingerprint)
  WHERE resolved_at IS NULL AND (tenant_id IS NULL OR reason = 'idempotency_conflict');
CREATE INDEX dead_letters_dispatch_due ON {schema}.dead_letters (dispatch_due_at) WHERE dispatch_due_at IS NOT NULL;
CREATE INDEX dead_letters_open ON {schema}.dead_letters (queue, created_at) WHERE resolved_at IS NULL;

CREATE TABLE {schema}.job_attempts (
  tenant_id     text        NOT NULL,
  operation_key text        NOT NULL,
  fencing_token bigint      NOT NULL,
  attempt       integer     NOT NULL,
  run_id     text,
  started_at    timestamptz,
  ended_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
  -- The failure's kind, or 'taken_over' where the worker vanished.
  kind          text        NOT NULL,
  reason        text,
  error         json,
  -- The wait before the next attempt; null: there is none.
  delay_ms      bigint,
  PRIMARY KEY (tenant_id, operation_key, fencing_token)
);
`,
};
