import { Injectable } from '@nestjs/common';
import { Due } from '../../producer/due.js';
import { type JobEvent, JobEvents } from '../../events/job-events.js';
import { LibraryLog } from '../../events/library-log.js';
import { OutcomeStore } from '../../ledger/record/outcome.store.js';
import { OperationInDoubtError } from '../../operation/errors.js';
import type { OperationIdentity } from '../../operation/identity.js';
import type { JobSubject } from '../../operation/job.js';
import { shownKey } from '../../operation/origin.js';
import type { OperationStatus } from '../../operation/status.js';
import { Database } from '../../ledger/postgres/database.js';
import { NOW, statement } from '../../ledger/postgres/statement.js';

/** What is read of a doubt: what its letter and its event name. */
const DOUBT =
  'tenant_id, operation_key, step_of, fencing_token::float8 AS token, queue, job_name, job_id, attempts, status';

/**
 * Finds doubts that nothing else would find. First, calls and steps that must not be repeated, and whose process has
 * vanished or whose doubt has outlived the service's memory: no job is delivered again for them, and their callers may
 * never come back. Second, operations that should have been asked about a day ago, and that no dispatcher puts on their
 * queue again: their job is lost, or their handler is gone.
 *
 * Operations that can be looked up, and steps, whose handler comes again, are given a day first: that is how long the
 * schedule of questions lasts by default.
 */
const FORGOTTEN_DOUBTS = statement(
  'forgotten_doubts',
  `
(
  SELECT ${DOUBT} FROM {schema}.job_outcomes
  WHERE origin <> 'job' AND lease_expires_at <= ${NOW} - interval '1 minute' AND lease_expires_at <= clock_timestamp() - CASE
      WHEN effect = 'reconciled' OR status = 'in_doubt' OR step_of IS NOT NULL THEN interval '1 day'
      ELSE interval '1 minute' END
    AND (status = 'in_doubt' OR repeatable_until <= clock_timestamp())
  ORDER BY lease_expires_at LIMIT :limit
) UNION ALL (
  SELECT ${DOUBT} FROM {schema}.job_outcomes
  WHERE origin <> 'job' AND status = 'retrying' AND doubt_since IS NOT NULL
    AND repeatable_until <= ${NOW} - interval '1 day'
  ORDER BY repeatable_until LIMIT :limit
) UNION ALL (
  SELECT ${DOUBT} FROM {schema}.job_outcomes
  WHERE status = 'in_doubt' AND lease_expires_at IS NULL AND payload IS NULL AND reconcile_due_at <= ${NOW} - interval '1 day'
  ORDER BY reconcile_due_at LIMIT :limit
)
`,
);

interface ForgottenDoubt extends OperationIdentity, JobSubject {
  /** For a step: the key of its operation. */
  readonly stepOf: string | undefined;
  readonly token: number;
  readonly attempts: number;
  readonly status: OperationStatus;
}

/** Writes the dead letters of forgotten doubts, and tells of them. Any number of processes may sweep. */
@Injectable()
export class DoubtSweep {
  #timer: NodeJS.Timeout | undefined;
  #sweeping: Promise<void> | undefined;

  constructor(
    private readonly database: Database,
    private readonly outcomes: OutcomeStore,
    private readonly due: Due,
    private readonly events: JobEvents,
    private readonly log: LibraryLog,
  ) {}

  start(intervalMs: number): void {
    this.#timer = setInterval(() => {
      this.#sweeping ??= this.sweep()
        .catch((error: unknown) => this.log.trouble('Looking for forgotten doubts was interrupted', error))
        .finally(() => {
          this.#sweeping = undefined;
        });
    }, intervalMs);
    this.#timer.unref();
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await this.#sweeping;
  }

  async sweep(): Promise<void> {
    const forgotten = await this.database.read<ForgottenDoubt>(FORGOTTEN_DOUBTS.with({ limit: BATCH }));
    for (const doubt of forgotten) {
      try {
        const error = new OperationInDoubtError(doubt);
        const recorded = await this.outcomes.doubt(doubt, doubt.token, error, undefined);
        if (recorded === 'lost') continue;
        this.due.wake();
        this.events.emit(doubted(doubt, error));
      } catch (error) {
        // A doubt whose row is locked, or that cannot be written, must not keep the others from being found.
        this.log.trouble('A forgotten doubt could not be recorded, and is looked at again', error);
      }
    }
  }
}

const BATCH = 100;

function doubted(
  { queue, jobName, jobId, tenantId, operationKey, stepOf, attempts: attempt, status }: ForgottenDoubt,
  { message }: Error,
): JobEvent {
  return {
    kind: 'in_doubt',
    queue,
    jobName,
    jobId,
    tenantId,
    operationKey: shownKey(operationKey),
    ...(stepOf !== undefined && { stepOf }),
    attempt,
    failure: 'in_doubt',
    failureCode: 'lease_expired',
    error: message,
    durationMs: 0,
    // The end of any other attempt has been told.
    ...(status === 'running' && { isVanished: true }),
  };
}
