import { Injectable } from '@nestjs/common';
import { cleanText, describeError } from '../operation/thrown.js';
import { MAX_JOB_NAME_LENGTH, type OperationIdentity } from '../operation/identity.js';
import { Database, type Queryable } from '../ledger/postgres/database.js';
import { statement } from '../ledger/postgres/statement.js';
import { errorFingerprint, VERSIONS } from '../ledger/record/letter-evidence.js';
import { storableJobId } from '../operation/job.js';
import type { DeadLetterReason } from '../operation/reasons.js';

/**
 * Writes a letter for a delivery whose operation, if there is one, is not touched: the delivery has no valid identity,
 * conflicts with the operation that owns the key, or is older than the ledger's memory. The parameters are named like the
 * columns. *No row*: the delivery already has its letter, and nothing is written.
 */
const WRITE_LETTER = statement(
  'write_letter',
  `
INSERT INTO {schema}.dead_letters (origin, tenant_id, operation_key, queue, job_name, job_id, reason, payload, fingerprint, error, run_id, versions, error_fingerprint)
VALUES ('job', :tenantId, :operationKey, :queue, :jobName, :jobId, :reason, :payload::json, :fingerprint, :error::json, :runId, :versions::json, :errorFingerprint)
ON CONFLICT DO NOTHING
RETURNING 1
`,
);

/**
 * Of failed jobs, those that the ledger accounts for: by a letter of the job, or by its operation, which has ended or is
 * in doubt.
 */
const ACCOUNTED = statement(
  'accounted',
  `
SELECT failed.n
FROM unnest(:jobId::text[], :tenantId::text[], :operationKey::text[]) WITH ORDINALITY AS failed (job_id, tenant_id, operation_key, n)
WHERE EXISTS (SELECT FROM {schema}.dead_letters l WHERE l.queue = :queue AND l.job_id = failed.job_id)
   OR EXISTS (
     SELECT FROM {schema}.job_outcomes o
     WHERE o.tenant_id = failed.tenant_id AND o.operation_key = failed.operation_key
       AND o.status IN ('completed', 'dead', 'in_doubt')
     OFFSET 0 -- looks it up by its key
   )
`,
);

/** Whether a tenant was erased after a time. */
const WAS_ERASED = statement(
  'was_erased',
  `
SELECT EXISTS (
  SELECT FROM {schema}.job_actions
  WHERE tenant_id = :tenantId AND action = 'erase' AND at >= timestamptz 'epoch' + :sinceMs::float8 * interval '1 millisecond'
) AS was_erased
`,
);

/** A delivery that was given up on. */
export interface NewDeadLetter {
  readonly identity: OperationIdentity | undefined;
  readonly queue: string;
  readonly jobName: string;
  readonly jobId: string;
  readonly reason: DeadLetterReason;
  /** JSON text, as it is stored: encrypted where encryption is on. */
  readonly payload: string | undefined;
  readonly fingerprint: string;
  readonly error: unknown;
  readonly runId: string;
}

/** Writes letters for deliveries, and knows which have one. */
@Injectable()
export class LetterStore {
  constructor(private readonly database: Database) {}

  /** Returns whether a new letter was written; false when the delivery already had one. */
  async write(letter: NewDeadLetter, connection?: Queryable): Promise<boolean> {
    const evidence = describeError(letter.error);
    const call = WRITE_LETTER.with({
      ...letter,
      tenantId: letter.identity?.tenantId,
      operationKey: letter.identity?.operationKey,
      jobName: cleanText(letter.jobName, MAX_JOB_NAME_LENGTH),
      jobId: storableJobId(letter.jobId),
      error: JSON.stringify(evidence),
      versions: VERSIONS,
      errorFingerprint: errorFingerprint(letter.reason, evidence),
    });
    return (await this.database.run(call, connection)).length > 0;
  }

  /** Whether the tenant was erased after that time, in ms since 1970 by the database's clock. */
  async wasErased(tenantId: string, sinceMs: number): Promise<boolean> {
    const [row] = await this.database.run<{ was_erased: boolean }>(WAS_ERASED.with({ tenantId, sinceMs }));
    return row?.was_erased === true;
  }

  /** Of failed jobs, returns the ids of those that the ledger accounts for. */
  async accountedFor(
    queue: string,
    jobs: readonly { readonly jobId: string; readonly identity: OperationIdentity | undefined }[],
  ): Promise<Set<string>> {
    const rows = await this.database.run<{ n: string }>(
      ACCOUNTED.with({
        queue,
        jobId: jobs.map((job) => storableJobId(job.jobId)),
        tenantId: jobs.map((job) => job.identity?.tenantId ?? null),
        operationKey: jobs.map((job) => job.identity?.operationKey ?? null),
      }),
    );
    return new Set(rows.map((row) => jobs[Number(row.n) - 1]?.jobId as string));
  }
}
