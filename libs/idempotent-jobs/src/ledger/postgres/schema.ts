/**
 * The ledger's tables, as version 1 of the schema makes them. `{schema}` stands for the quoted schema. Never edit this
 * after its release; a change is a new step in `migrations.ts`.
 *
 * With a number of partitions, `job_outcomes` is partitioned by tenant. Every statement that knows an operation knows its
 * tenant, so that it finds the one partition, and the unique key holds over all of them. The other tables stay whole: they
 * are small beside it, and letters and actions are looked for by queue and id.
 *
 * The CHECK constraints restate the state machine, so that no statement, of the library or of an operator, can leave a row
 * in a state that the code does not know. Payloads and results are `json` instead of `jsonb`, which keeps the text as it
 * was written and costs no parsing. Most indexes are partial: they leave out settled rows, however many there are.
 */
export const ledgerTables = (partitions?: number): string => `
-- Intent, lease, result and outbox of an operation, in one row.
CREATE TABLE {schema}.job_outcomes (
  tenant_id         text        NOT NULL CHECK (char_length(tenant_id) BETWEEN 1 AND 255),
  operation_key     text        NOT NULL CHECK (char_length(operation_key) BETWEEN 1 AND 400),

  -- Who comes again for it: its BullMQ job, the handler of a job whose step it is, or the caller of a guarded call (also
  -- for the steps inside of that call).
  origin            text        NOT NULL CHECK (origin IN ('job', 'step', 'call')),
  -- The key of the operation whose handler runs it as a step, and the step's name.
  step_of           text,
  step              text,
  queue             text        NOT NULL,
  job_name          text        NOT NULL,
  -- The BullMQ job that carries the operation now; a redrive gets another.
  job_id            text        NOT NULL,
  -- What was requested: SHA-256 over tenant, job name and payload.
  fingerprint       text        NOT NULL CHECK (char_length(fingerprint) = 64),

  status            text        NOT NULL CHECK (status IN ('pending', 'running', 'retrying', 'in_doubt', 'completed', 'dead')),
  -- The effect that the latest attempt declared.
  effect            text                 CHECK (effect IN ('natural', 'transactional', 'keyed', 'reconciled', 'unrepeatable')),
  -- Grows with every claim. Every write that leaves 'running' names it.
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
  -- When the last attempt that left a doubt had ended, or was found to have vanished.
  doubted_at        timestamptz,
  -- When the service is asked next whether the effect happened. Null where nobody asks.
  reconcile_due_at  timestamptz,

  -- The end of the total time budget. has_own_deadline tells one that its producer gave, who alone may lift it, from one that
  -- follows from the processor's time budget.
  deadline_at       timestamptz,
  has_own_deadline  boolean     NOT NULL DEFAULT false,
  -- Not to be run before.
  available_at      timestamptz,
  priority          integer,
  -- The retry policy that its producer asked for. Null means the processor's.
  retry_policy      text,
  -- The last wait before another attempt, which decorrelated jitter grows from.
  delay_ms          float8,

  -- Kept until it is settled, where the ledger owns delivery.
  payload           json,
  result            json,
  -- Why it completed without the result that its handler returned.
  result_omitted    text,
  -- Which dependency a fallback answered for, and why. Null means that the result is the real thing.
  degraded          text,
  error             json,

  -- When it must next be put on its queue. Null where nothing is due.
  dispatch_due_at   timestamptz,
  dispatches        integer     NOT NULL DEFAULT 0,
  -- How often it was brought back, each time under another BullMQ job id, and the letter that did it last, or that it was
  -- made from by hand.
  redrives          integer     NOT NULL DEFAULT 0 CHECK (redrives >= 0),
  redriven_from     uuid,
  trace_context     json,
  -- The trace of its last run, for the next one to link to.
  last_trace        text,
  created_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
  started_at        timestamptz,
  settled_at        timestamptz,
  expires_at        timestamptz,

  CONSTRAINT job_outcomes_operation_unique UNIQUE (tenant_id, operation_key),
  -- An operation that is being asked about is in doubt under a lease, so that one worker asks at a time.
  CONSTRAINT job_outcomes_running_has_lease CHECK (CASE status
    WHEN 'running' THEN
      lease_expires_at IS NOT NULL AND run_id IS NOT NULL AND started_at IS NOT NULL AND fencing_token > 0 AND attempts > 0
    WHEN 'in_doubt' THEN
      lease_expires_at IS NULL OR (reconcile_due_at IS NOT NULL AND run_id IS NOT NULL AND fencing_token > 0)
    ELSE lease_expires_at IS NULL
  END),
  CONSTRAINT job_outcomes_only_doubt_is_reconciled CHECK (reconcile_due_at IS NULL OR status = 'in_doubt'),
  CONSTRAINT job_outcomes_settled_has_time CHECK ((status IN ('completed', 'dead')) = (settled_at IS NOT NULL)),
  CONSTRAINT job_outcomes_only_completed_has_result CHECK (result IS NULL OR status = 'completed'),
  CONSTRAINT job_outcomes_omitted_result_is_not_there CHECK (
    result_omitted IS NULL OR (
      result_omitted IN ('too_large', 'not_json', 'not_stored', 'redact_failed') AND result IS NULL AND status = 'completed'
    )
  ),
  CONSTRAINT job_outcomes_only_jobs_have_payload CHECK (payload IS NULL OR origin = 'job'),
  CONSTRAINT job_outcomes_only_open_is_dispatched CHECK (
    dispatch_due_at IS NULL OR (
      payload IS NOT NULL AND (status IN ('pending', 'running', 'retrying') OR reconcile_due_at IS NOT NULL))
  ),
  -- A call that failed is nobody's to run again, and is forgotten like one that completed.
  CONSTRAINT job_outcomes_only_settled_expires CHECK (
    expires_at IS NULL OR status IN ('completed', 'dead') OR (status = 'retrying' AND origin = 'call')
  ),
  CONSTRAINT job_outcomes_steps_are_whole CHECK (
    (step_of IS NULL) = (step IS NULL)
    AND CASE origin WHEN 'job' THEN step_of IS NULL WHEN 'step' THEN step_of IS NOT NULL ELSE true END
  )
)${partitions === undefined ? '' : ' PARTITION BY HASH (tenant_id)'};
-- The operation is the row's identity, also for logical replication. A surrogate key would be a second index to write.
ALTER TABLE {schema}.job_outcomes REPLICA IDENTITY USING INDEX job_outcomes_operation_unique;
${partitionTables(partitions)}
CREATE INDEX job_outcomes_dispatch_due ON {schema}.job_outcomes (dispatch_due_at) WHERE dispatch_due_at IS NOT NULL;
-- What was never on its queue, which health and metrics ask for: few rows, next to all that wait on their queue.
CREATE INDEX job_outcomes_undispatched ON {schema}.job_outcomes (created_at) WHERE dispatch_due_at IS NOT NULL AND dispatches = 0;
CREATE INDEX job_outcomes_expiring ON {schema}.job_outcomes (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX job_outcomes_in_doubt ON {schema}.job_outcomes (queue, doubt_since) WHERE status = 'in_doubt';
CREATE INDEX job_outcomes_redriven ON {schema}.job_outcomes (redriven_from) WHERE redriven_from IS NOT NULL;
CREATE INDEX job_outcomes_steps ON {schema}.job_outcomes (tenant_id, step_of) WHERE step_of IS NOT NULL;
-- For the sweep of doubts that no job comes back for.
CREATE INDEX job_outcomes_calls_running ON {schema}.job_outcomes (lease_expires_at)
  WHERE origin <> 'job' AND lease_expires_at IS NOT NULL;
CREATE INDEX job_outcomes_calls_doubtful ON {schema}.job_outcomes (repeatable_until)
  WHERE origin <> 'job' AND status = 'retrying' AND doubt_since IS NOT NULL;
-- Operations that only their BullMQ job carries, by when that should have been delivered, for the sweep of jobs that have
-- ended without them.
CREATE INDEX job_outcomes_carried_by_job ON {schema}.job_outcomes (
  queue, COALESCE(lease_expires_at, reconcile_due_at, available_at, created_at), tenant_id, operation_key
) WHERE payload IS NULL AND origin = 'job' AND (status IN ('pending', 'running', 'retrying') OR reconcile_due_at IS NOT NULL);

-- The evidence of deliveries that were given up on.
CREATE TABLE {schema}.dead_letters (
  id                uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
  -- Null when the delivery had no valid identity.
  tenant_id         text,
  operation_key     text,
  origin            text        NOT NULL CHECK (origin IN ('job', 'step', 'call')),
  step_of           text,
  step              text,
  queue             text        NOT NULL,
  job_name          text        NOT NULL,
  job_id            text        NOT NULL,
  reason            text        NOT NULL CHECK (reason IN (
    'permanent_error', 'retries_exhausted', 'time_budget_exceeded', 'deferred_too_long', 'crash_loop', 'payload_invalid',
    'identity_missing', 'tenant_mismatch', 'idempotency_conflict', 'in_doubt', 'expired', 'manual'
  )),
  payload           json,
  -- Of the request. Where there is no identity, of the job's time and data.
  fingerprint       text        NOT NULL,
  error             json,
  -- The same for letters of one cause: reason, error class and place, without what differs between operations.
  error_fingerprint text        NOT NULL DEFAULT '',
  attempts          integer     NOT NULL DEFAULT 0,
  failures          integer     NOT NULL DEFAULT 0,
  fencing_token     bigint      NOT NULL DEFAULT 0,
  doubt_since       timestamptz,
  run_id         text,
  -- Versions of library and Node that gave up.
  versions          json,
  trace_context     json,
  created_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
  -- When it must be put on the dead-letter queue, null once that is done; how often it was; and when a handler of the
  -- application had heard of it.
  dispatch_due_at   timestamptz          DEFAULT clock_timestamp(),
  dispatches        integer     NOT NULL DEFAULT 0,
  notified_at           timestamptz,
  -- The redrive of many that has taken it on.
  redrive_id        uuid,
  resolved_at       timestamptz,
  resolution        text                 CHECK (resolution IN ('redriven', 'discarded', 'applied', 'not_applied', 'completed')),
  actor             text,
  note              text,

  CONSTRAINT dead_letters_identity_is_whole CHECK ((tenant_id IS NULL) = (operation_key IS NULL)),
  CONSTRAINT dead_letters_resolution_is_whole CHECK (
    (resolved_at IS NULL) = (resolution IS NULL) AND (resolved_at IS NULL OR (actor IS NOT NULL AND note IS NOT NULL))
  )
);
-- One open letter per dead operation. A conflicting request is not the operation's own death, nor is a job that is older than
-- the ledger's memory: the key may be in use again.
CREATE UNIQUE INDEX dead_letters_one_open_per_operation ON {schema}.dead_letters (tenant_id, operation_key)
  WHERE resolved_at IS NULL AND reason NOT IN ('idempotency_conflict', 'expired');
-- One open letter per request of a job for these, and for those without an identity. Job ids are used again.
CREATE UNIQUE INDEX dead_letters_one_open_per_delivery ON {schema}.dead_letters (queue, job_id, reason, fingerprint)
  WHERE resolved_at IS NULL AND (tenant_id IS NULL OR reason IN ('idempotency_conflict', 'expired'));
CREATE INDEX dead_letters_dispatch_due ON {schema}.dead_letters (dispatch_due_at) WHERE dispatch_due_at IS NOT NULL;
CREATE INDEX dead_letters_undispatched ON {schema}.dead_letters (created_at) WHERE dispatch_due_at IS NOT NULL AND dispatches = 0;
CREATE INDEX dead_letters_open ON {schema}.dead_letters (queue, created_at) WHERE resolved_at IS NULL;
CREATE INDEX dead_letters_group ON {schema}.dead_letters (error_fingerprint) WHERE resolved_at IS NULL;
CREATE INDEX dead_letters_resolved ON {schema}.dead_letters (queue, resolved_at) WHERE resolved_at IS NOT NULL;
CREATE INDEX dead_letters_redrive ON {schema}.dead_letters (redrive_id, created_at, id) WHERE redrive_id IS NOT NULL;
CREATE INDEX dead_letters_newest ON {schema}.dead_letters (created_at, id);
CREATE INDEX dead_letters_operation ON {schema}.dead_letters (tenant_id, operation_key);
CREATE INDEX dead_letters_job ON {schema}.dead_letters (queue, job_id);

-- What each attempt that did not succeed saw, and beside it what was asked and answered about it.
CREATE TABLE {schema}.job_attempts (
  tenant_id     text        NOT NULL,
  operation_key text        NOT NULL,
  fencing_token bigint      NOT NULL,
  attempt       integer     NOT NULL,
  run_id     text,
  started_at    timestamptz,
  ended_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
  -- The failure's kind; 'taken_over' where the worker vanished, 'surrendered' where it came back late, 'reconciled' of a question.
  kind          text        NOT NULL,
  reason        text,
  error         json,
  -- The wait before the next attempt. Null where there is none.
  delay_ms      bigint,
  -- Why the operation was tried again, given up, or left in doubt.
  decision      text,
  PRIMARY KEY (tenant_id, operation_key, fencing_token, kind)
);

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
    'discard', 'resolve_applied', 'resolve_not_applied', 'report_applied', 'report_not_applied', 'erase'
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

-- What the applications say about their queues when they start, for those who work on the ledger without being the
-- application: retention, the command line, the doctor.
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
)`;

/**
 * The partitions of `job_outcomes`. They get its constraints and indexes, also those of later versions, but not its replica
 * identity, which each has to be given.
 */
function partitionTables(count = 0): string {
  const tables = Array.from({ length: count }, (_, remainder) => {
    const name = `job_outcomes_p${remainder}`;
    return `
CREATE TABLE {schema}.${name} PARTITION OF {schema}.job_outcomes FOR VALUES WITH (MODULUS ${count}, REMAINDER ${remainder});
ALTER TABLE {schema}.${name} REPLICA IDENTITY USING INDEX ${name}_tenant_id_operation_key_key;`;
  });
  return tables.join('');
}

/** Version 2. The BullMQ job that was last put on the queue for an operation together with others; null where it had its own. */
export const BUNDLES = `ALTER TABLE {schema}.job_outcomes ADD COLUMN bundle_id text`;
