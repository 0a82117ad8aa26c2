import type { OperationIdentity } from '../operation/identity.js';
import type { Database, Queryable } from '../postgres/database.js';
import { statement } from '../postgres/statement.js';
import { describeError } from '../record/error-evidence.js';
import { VERSIONS } from '../record/versions.js';
import type { DeadLetterReason } from './letter.js';

/**
 * Buries a delivery whose operation, if it has one at all, is not touched: no valid identity, or a conflict with the
 * operation that owns the key. Parameters as the columns. A second burial of the same delivery writes nothing.
 */
const BURY = statement(
  'bury',
  `
INSERT INTO {schema}.dead_letters (tenant_id, operation_key, queue, job_name, job_id, reason, payload, fingerprint, error, worker_id, versions)
VALUES ($1, $2, $3, $4, $5, $6, $7::json, $8, $9::json, $10, $11::json)
ON CONFLICT DO NOTHING
`,
);

/** Whether jobs are accounted for: by a letter, or by an operation that is settled or in doubt. Parameters: queue, job ids. */
const ACCOUNTED = statement(
  'accounted',
  `
SELECT job_id FROM {schema}.dead_letters WHERE queue = $1 AND job_id = ANY ($2::text[])
UNION
SELECT job_id FROM {schema}.job_outcomes
WHERE (tenant_id, operation_key) IN (SELECT * FROM unnest($3::text[], $4::text[]))
  AND queue = $1 AND status IN ('completed', 'dead', 'in_doubt')
`,
);

/** Redis takes names that Postgres does not. */
function storable(text: string): string {
  return text.toWellFormed().replaceAll('\0', '\u{FFFD}');
}

/** A delivery that was given up on. */
export interface Burial {
  readonly identity: OperationIdentity | undefined;
  readonly queue: string;
  readonly jobName: string;
  readonly jobId: string;
  readonly reason: DeadLetterReason;
  /** JSON text. */
  readonly payload: string | undefined;
  readonly fingerprint: string | undefined;
  readonly error: unknown;
  readonly workerId: string;
}

/** Writes letters for deliveries, and knows which have one. */
export class LetterStore {
  constructor(private readonly database: Database) {}

  async bury(burial: Burial, connection?: Queryable): Promise<void> {
    const values = [
      burial.identity?.tenantId ?? null,
      burial.identity?.operationKey ?? null,
      burial.queue,
      storable(burial.jobName),
      storable(burial.jobId),
      burial.reason,
      burial.payload ?? null,
      burial.fingerprint ?? null,
      JSON.stringify(describeError(burial.error)),
      burial.workerId,
      VERSIONS,
    ];
    await this.database.run(BURY, values, connection);
  }

  /** Of failed jobs, the ids of those that the ledger can answer for. */
  async accountedFor(
    queue: string,
    jobs: readonly { readonly jobId: string; readonly identity: OperationIdentity | undefined }[],
  ): Promise<Set<string>> {
    const identified = jobs.flatMap((job) => (job.identity === undefined ? [] : [job.identity]));
    const rows = await this.database.run<{ job_id: string }>(ACCOUNTED, [
      queue,
      jobs.map((job) => job.jobId),
      identified.map((identity) => identity.tenantId),
      identified.map((identity) => identity.operationKey),
    ]);
    return new Set(rows.map((row) => row.job_id));
  }
}
