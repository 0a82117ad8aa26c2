import { Injectable } from '@nestjs/common';
import type { Job } from 'bullmq';
import { Due } from '../../producer/due.js';
import { provenanceOf } from '../../producer/envelope.js';
import { JobIdentifier } from '../identify/identify.js';
import { LibraryLog } from '../../events/library-log.js';
import { JobEvents } from '../../events/job-events.js';
import { IdempotentJobsError } from '../../operation/errors.js';
import { payloadTextOf } from '../../operation/json.js';
import { OutcomeStore } from '../../ledger/record/outcome.store.js';
import type { QueuePort } from '../../bullmq/queue-port.js';
import type { ProcessorRules } from '../rules/operation-rules.js';
import type { Effect } from '../../operation/effect.js';
import type { OperationIdentity } from '../../operation/identity.js';
import type { OperationStatus } from '../../operation/status.js';
import { Database } from '../../ledger/postgres/database.js';
import { inMs, NOW, statement } from '../../ledger/postgres/statement.js';

/** When the job of an operation should have been delivered. Must match the index `job_outcomes_carried_by_job`. */
const DUE_AT = `COALESCE(lease_expires_at, reconcile_due_at, available_at, created_at)`;

/** Operations that are due and that only their BullMQ job carries, the longest due first. */
const CARRIED_BY_JOB = statement(
  'carried_by_job',
  `
SELECT tenant_id AS "tenantId", operation_key AS "operationKey", job_name AS "jobName", job_id AS "jobId",
  fencing_token::float8 AS token, attempts, status, effect, (EXTRACT(EPOCH FROM ${DUE_AT}) * 1000000)::bigint::text AS "dueUs"
FROM {schema}.job_outcomes
WHERE queue = :queue AND payload IS NULL AND origin = 'job'
  AND (status IN ('pending', 'running', 'retrying') OR reconcile_due_at IS NOT NULL)
  AND ${DUE_AT} <= ${NOW}
  AND (${DUE_AT}, tenant_id, operation_key) > (COALESCE(timestamptz 'epoch' + :seenDueUs::float8 * interval '1 microsecond', '-infinity'), :seenTenantId, :seenKey)
ORDER BY ${DUE_AT}, tenant_id, operation_key
LIMIT :limit
`,
);

/**
 * pending or retrying → retrying, doubtful: a worker may have run it without the ledger. No row means that it was
 * claimed since, and its claimant decides.
 */
const SUSPECT = statement(
  'suspect',
  `
UPDATE {schema}.job_outcomes SET
  status           = 'retrying',
  doubt_since      = COALESCE(doubt_since, started_at, clock_timestamp()),
  doubted_at       = clock_timestamp(),
  repeatable_until = COALESCE(repeatable_until, ${inMs(':repeatableMs::float8')}, 'infinity'),
  expires_at       = NULL
WHERE tenant_id = :tenantId AND operation_key = :operationKey AND fencing_token = :token AND status IN ('pending', 'retrying')
RETURNING true
`,
);

/** An operation that only its BullMQ job carries. */
interface CarriedOperation extends OperationIdentity {
  readonly jobName: string;
  readonly jobId: string;
  readonly token: number;
  readonly attempts: number;
  readonly status: OperationStatus;
  /** As its last attempt declared it. Null when there was no attempt. */
  readonly effect: Effect | null;
  /** When its job should have been delivered, in µs since 1970: the cursor of the next page. */
  readonly dueUs: string;
}

/** A queue whose failed jobs are swept. */
export interface SweptQueue {
  readonly port: QueuePort;
  readonly rules: ProcessorRules;
}

/** How BullMQ has ended the job of an operation that is not finished. */
interface EndedJob {
  readonly end: 'completed' | 'failed' | 'gone';
  /** Undefined when the job is gone, or its id belongs to another operation by now. */
  readonly job: Job | undefined;
  /** The payload as JSON text. */
  readonly payload: string | undefined;
}

/**
 * Looks for unfinished operations whose only job BullMQ has ended or lost: a worker without the library took it, it was
 * removed by hand, or a queue was emptied. Nothing else would ever look at them again. (An operation whose payload is
 * in the ledger is put on its queue again by the dispatcher.)
 *
 * The worker that ended the job may have run it without a record. An operation that can be repeated, looked up or told
 * apart by its key is delivered again; of every other one, and of one without a job, a person has to find out.
 *
 * A job that ends during the sweep is not affected: the ledger records its end before BullMQ is told. Any number of
 * processes may sweep: their writes name the token that they saw, and BullMQ puts a job back only once.
 */
@Injectable()
export class EndedJobSweep {
  /** The last operation seen, by queue. A queue without an entry starts from the beginning. */
  readonly #seen = new Map<string, CarriedOperation>();

  constructor(
    private readonly database: Database,
    private readonly outcomes: OutcomeStore,
    private readonly events: JobEvents,
    private readonly identifier: JobIdentifier,
    private readonly due: Due,
    private readonly log: LibraryLog,
  ) {}

  /** Checks the next few pages of a queue. */
  async sweep(queue: SweptQueue): Promise<void> {
    const { name, contents } = queue.port;
    for (let page = 0; page < MAX_PAGES; page += 1) {
      const due = await this.#dueAfter(this.#seen.get(name), name);
      const ends = await Promise.all(due.map(({ jobId }) => contents.endOf(jobId)));
      for (const [index, operation] of due.entries()) {
        const end = ends[index];
        if (end !== undefined) await this.#goOn(queue, operation, end);
      }
      const last = due.length < PAGE ? undefined : due.at(-1);
      if (last === undefined) this.#seen.delete(name);
      else this.#seen.set(name, last);
      if (last === undefined) return;
    }
  }

  #dueAfter(seen: CarriedOperation | undefined, queue: string): Promise<CarriedOperation[]> {
    const { dueUs: seenDueUs, tenantId: seenTenantId = '', operationKey: seenKey = '' } = seen ?? {};
    return this.database.run(CARRIED_BY_JOB.with({ queue, seenDueUs, seenTenantId, seenKey, limit: PAGE }));
  }

  /** Notes that a worker without the ledger may have run it. False when it was claimed since. */
  async #suspect(
    { tenantId, operationKey, token }: CarriedOperation,
    { rules }: SweptQueue,
  ): Promise<boolean> {
    const { repeatableMs } = rules.claim;
    const call = SUSPECT.with({ tenantId, operationKey, token, repeatableMs });
    return (await this.database.run(call)).length > 0;
  }

  /** An operation that cannot be read, or that another process works on, must not keep the others from being checked. */
  async #goOn(queue: SweptQueue, operation: CarriedOperation, end: EndedJob['end']): Promise<void> {
    try {
      const ended = await this.#read(queue, operation, end);
      if (ended.job === undefined) return await this.#doubt(queue, operation, ended);
      // Its lease or its doubt already says what has to be found out before it is run.
      const isKnown = operation.status === 'running' || operation.status === 'in_doubt';
      if (isKnown || effectsOf(queue, operation).every((effect) => effect === 'natural'))
        return await deliverAgain(ended.job, ended.end);
      if (
        effectsOf(queue, operation).some((effect) => effect === 'unrepeatable' || effect === 'transactional')
      )
        return await this.#doubt(queue, operation, ended);
      if (await this.#suspect(operation, queue)) await deliverAgain(ended.job, ended.end);
    } catch (error) {
      this.log.trouble(
        `Operation "${operation.operationKey}" of tenant "${operation.tenantId}" goes on, but its job ${operation.jobId} of queue "${queue.port.name}" has ended; it is looked at again with the next sweep`,
        error,
      );
    }
  }

  async #read(
    { port, rules }: SweptQueue,
    { tenantId, operationKey, jobId }: CarriedOperation,
    end: EndedJob['end'],
  ): Promise<EndedJob> {
    // A job that was removed since BullMQ was asked for its state is not found.
    const job = end === 'gone' ? undefined : ((await port.contents.find(jobId)) ?? undefined);
    const identified = job && this.identifier.identify(job, provenanceOf(job), rules.identify);
    const isItsOwn =
      identified?.kind === 'identified' &&
      identified.tenantId === tenantId &&
      identified.operationKey === operationKey;
    return isItsOwn
      ? { end, job, payload: payloadTextOf(identified.canonical) }
      : { end: 'gone', job: undefined, payload: undefined };
  }

  async #doubt(
    { port: { name: queue } }: SweptQueue,
    operation: CarriedOperation,
    { end, payload }: EndedJob,
  ): Promise<void> {
    const { tenantId, operationKey, jobName, jobId, token, attempts: attempt } = operation;
    const error = new JobEndedError(operation, end);
    const recorded = await this.outcomes.doubt(operation, token, error, payload);
    if (recorded === 'lost') return;
    this.due.wake();
    this.events.emit({
      kind: 'in_doubt',
      queue,
      jobName,
      jobId,
      tenantId,
      operationKey,
      attempt,
      failure: 'in_doubt',
      failureCode: 'job_ended',
      error: error.message,
      durationMs: 0,
    });
  }
}

/** The effects of the processor and of the last attempt, which may have run in another version of the application. */
function effectsOf({ rules }: SweptQueue, { effect }: CarriedOperation): readonly string[] {
  return effect === null ? [rules.effect] : [rules.effect, effect];
}

/** Delivers the job again as a new one: the ledger counts its attempts. */
async function deliverAgain(job: Job, end: EndedJob['end']): Promise<void> {
  if (end !== 'gone') await job.retry(end, { resetAttemptsMade: true, resetAttemptsStarted: true });
}

/** The only job of an operation has ended, or is gone, without a record of what became of the operation. */
class JobEndedError extends IdempotentJobsError {
  constructor({ tenantId, operationKey, jobId }: CarriedOperation, end: EndedJob['end']) {
    const what =
      end === 'gone'
        ? 'is not on its queue any more'
        : `was ${end} by somebody who does not know the ledger, a worker of another kind for example`;
    super(
      'JOB_ENDED',
      `Job ${jobId}, which carries operation "${operationKey}" of tenant "${tenantId}", ${what}; whether it has run meanwhile is not recorded. Find out, and resolve its dead letter as applied or as not applied.`,
      { data: { tenantId, operationKey, jobId, end } },
    );
  }
}

/** How many jobs are looked up in BullMQ at a time, and how many such pages in one sweep. */
const PAGE = 200;
const MAX_PAGES = 5;
