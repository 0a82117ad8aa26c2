import { Injectable } from '@nestjs/common';
import { cleanText } from '../operation/clean-text.js';
import { MAX_JOB_NAME_LENGTH, type OperationIdentity } from '../operation/identity.js';
import { Database, type Queryable } from '../ledger/postgres/database.js';
import { statement } from '../ledger/postgres/statement.js';
import { describeError } from '../operation/error-evidence.js';
import { errorFingerprint } from '../ledger/record/error-fingerprint.js';
import { storableJobId } from '../operation/job-id.js';
import { VERSIONS } from '../ledger/record/versions.js';
import type { DeadLetterReason } from '../operation/reasons.js';

/**
 * Buries a delivery whose operation, if it has one at all, is not touched: no valid identity, a conflict with the
 * operation that owns the key, or a job older than the ledger's memory. Parameters as the columns. A second burial
 * of the same delivery writes nothing, and no row comes back.
 */
const BURY = statement(
  'bury',
  `
INSERT INTO {schema}.dead_letters (tenant_id, operation_key, queue, job_name, job_id, reason, payload, fingerprint, error, run_id, versions, error_fingerprint)
VALUES ($1, $2, $3, $4, $5, $6, $7::json, $8, $9::json, $10, $11::json, $12)
ON CONFLICT DO NOTHING
RETURNING 1
`,
);

/**
 * Which failed jobs the ledger answers for: by a letter of that job, or by its operation, which has ended or is in
 * doubt. Parameters: queue; then parallel arrays: job id, tenant and key (null where the job has none).
 */
const ACCOUNTED = statement(
  'accounted',
  `
SELECT failed.n
FROM unnest($2::text[], $3::text[], $4::text[]) WITH ORDINALITY AS failed (job_id, tenant_id, operation_key, n)
WHERE EXISTS (SELECT FROM {schema}.dead_letters l WHERE l.queue = $1 AND l.job_id = failed.job_id)
   OR EXISTS (
     SELECT FROM {schema}.job_outcomes o
     WHERE o.tenant_id = failed.tenant_id AND o.operation_key = failed.operation_key
       AND o.status IN ('completed', 'dead', 'in_doubt')
   )
`,
);

/** Whether a tenant was erased after a time. Parameters: tenant, ms since 1970 by the database's clock. */
const WAS_ERASED = statement(
  'was_erased',
  `
SELECT EXISTS (
  SELECT FROM {schema}.job_actions
  WHERE tenant_id = $1 AND action = 'erase' AND at >= timestamptz 'epoch' + $2::float8 * interval '1 millisecond'
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
  /** JSON text, as it is kept: encrypted, where that is switched on. */
  readonly payload: string | undefined;
  readonly fingerprint: string;
  readonly error: unknown;
  readonly runId: string;
}

/** Writes letters for deliveries, and knows which have one. */
@Injectable()
export class LetterStore {
  constructor(private readonly database: Database) {}

  /** Answers whether there is a new letter; false: the delivery has had its own before. */
  async write(burial: NewDeadLetter, connection?: Queryable): Promise<boolean> {
    const evidence = describeError(burial.error);
    const values = [
      burial.identity?.tenantId ?? null,
      burial.identity?.operationKey ?? null,
      burial.queue,
      cleanText(burial.jobName, MAX_JOB_NAME_LENGTH),
      storableJobId(burial.jobId),
      burial.reason,
      burial.payload ?? null,
      burial.fingerprint,
      JSON.stringify(evidence),
      burial.runId,
      VERSIONS,
      errorFingerprint(burial.reason, evidence),
    ];
    return (await this.database.run(BURY, values, connection)).length > 0;
  }

  /** Whether the tenant was erased after that time, in ms since 1970 by the database's clock. */
  async wasErased(tenantId: string, sinceMs: number): Promise<boolean> {
    const [row] = await this.database.run<{ was_erased: boolean }>(WAS_ERASED, [tenantId, sinceMs]);
    return row?.was_erased === true;
  }

  /** Of failed jobs, the ids of those that the ledger can answer for. */
  async accountedFor(
    queue: string,
    jobs: readonly { readonly jobId: string; readonly identity: OperationIdentity | undefined }[],
  ): Promise<Set<string>> {
    const rows = await this.database.run<{ n: string }>(ACCOUNTED, [
      queue,
      jobs.map((job) => storableJobId(job.jobId)),
      jobs.map((job) => job.identity?.tenantId ?? null),
      jobs.map((job) => job.identity?.operationKey ?? null),
    ]);
    return new Set(rows.map((row) => jobs[Number(row.n) - 1]?.jobId as string));
  }
}
