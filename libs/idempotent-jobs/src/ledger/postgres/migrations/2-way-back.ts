import type { SchemaStep } from './schema-step.js';

/**
 * The way back of dead letters: what groups them, who did what to them, and redrives of many, which have to outlive the
 * process that began them.
 */
export const CREATE_WAY_BACK: SchemaStep = {
  version: 2,
  name: 'way-back',
  sql: `
ALTER TABLE {schema}.job_outcomes
  -- How often it was brought back; each time under another BullMQ job id.
  ADD COLUMN redrives         integer NOT NULL DEFAULT 0 CHECK (redrives >= 0),
  -- The dead letter that brought it back last, or that it was made from by hand.
  ADD COLUMN redriven_from    uuid,
  -- Whether its deadline was given by its producer, who alone may lift it, or follows from the processor's time budget.
  ADD COLUMN has_own_deadline boolean NOT NULL DEFAULT false;

ALTER TABLE {schema}.dead_letters
  -- The same for letters of one cause: reason, error class and place, without what differs between operations.
  ADD COLUMN error_fingerprint text NOT NULL DEFAULT '',
  -- The redrive that has taken it on.
  ADD COLUMN redrive_id        uuid,
  -- How often it was put on the dead-letter queue; and when a handler of the application had heard of it.
  ADD COLUMN dispatches        integer NOT NULL DEFAULT 0,
  ADD COLUMN notified_at           timestamptz;

-- A job that is older than the ledger's memory is not its operation's own death either: the key may be in use again.
DROP INDEX {schema}.dead_letters_one_open_per_operation;
CREATE UNIQUE INDEX dead_letters_one_open_per_operation ON {schema}.dead_letters (tenant_id, operation_key)
  WHERE resolved_at IS NULL AND reason NOT IN ('idempotency_conflict', 'expired');
DROP INDEX {schema}.dead_letters_one_open_per_delivery;
CREATE UNIQUE INDEX dead_letters_one_open_per_delivery ON {schema}.dead_letters (queue, job_id, reason, fingerprint)
  WHERE resolved_at IS NULL AND (tenant_id IS NULL OR reason IN ('idempotency_conflict', 'expired'));

-- A redrive of many letters of one queue. Its letters name it; whoever holds its lease carries it on.
CREATE TABLE {schema}.dead_letter_redrives (
  id                uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
  queue             text        NOT NULL,
  status            text        NOT NULL DEFAULT 'running' CHECK (status IN ('running', 'completed', 'stopped', 'cancelled')),
  filter            json        NOT NULL,
  actor             text        NOT NULL,
  note              text        NOT NULL,
  rate_per_second   float8      NOT NULL CHECK (rate_per_second > 0),
  canary            integer     NOT NULL CHECK (canary >= 0),
  max_failure_share float8      NOT NULL CHECK (max_failure_share BETWEEN 0 AND 1),
  letters           integer     NOT NULL CHECK (letters >= 0),
  runner_id         text,
  lease_expires_at  timestamptz,
  created_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
  ended_at          timestamptz,
  -- Why it ended before its letters did.
  ended_because     text,

  CONSTRAINT dead_letter_redrives_ended_has_time CHECK ((status = 'running') = (ended_at IS NULL))
);
CREATE UNIQUE INDEX dead_letter_redrives_one_per_queue ON {schema}.dead_letter_redrives (queue) WHERE status = 'running';

-- What people did, and why. Written in the transaction that does it.
CREATE TABLE {schema}.job_actions (
  id            bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at            timestamptz NOT NULL DEFAULT clock_timestamp(),
  action        text        NOT NULL CHECK (action IN (
    'redrive', 'redrive_edited', 'redrive_many', 'redrive_stopped', 'redrive_cancelled', 'redrive_completed',
    'discard', 'resolve_applied', 'resolve_not_applied', 'erase'
  )),
  actor         text        NOT NULL,
  note          text        NOT NULL,
  queue         text,
  letter_id     uuid,
  redrive_id    uuid,
  tenant_id     text,
  operation_key text,
  details       json
);
CREATE INDEX job_actions_operation ON {schema}.job_actions (tenant_id, operation_key);
CREATE INDEX job_actions_letter ON {schema}.job_actions (letter_id);
`,
  indexes: [
    `INDEX job_outcomes_redriven ON {schema}.job_outcomes (redriven_from) WHERE redriven_from IS NOT NULL`,
    `INDEX dead_letters_redrive ON {schema}.dead_letters (redrive_id, created_at, id) WHERE redrive_id IS NOT NULL`,
    `INDEX dead_letters_group ON {schema}.dead_letters (error_fingerprint) WHERE resolved_at IS NULL`,
    `INDEX dead_letters_newest ON {schema}.dead_letters (created_at, id)`,
    `INDEX dead_letters_operation ON {schema}.dead_letters (tenant_id, operation_key)`,
    `INDEX dead_letters_resolved ON {schema}.dead_letters (queue, resolved_at) WHERE resolved_at IS NOT NULL`,
    `INDEX dead_letters_job ON {schema}.dead_letters (queue, job_id)`,
  ],
};
