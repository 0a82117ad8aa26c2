import { Injectable } from '@nestjs/common';
import type { Effect } from '../../operation/effect.js';
import type { OperationIdentity } from '../../operation/identity.js';
import type { OperationStatus } from '../../operation/status.js';
import { Database } from '../../ledger/postgres/database.js';
import { inMs, statement } from '../../ledger/postgres/statement.js';

/** When the job of an operation should have been delivered. Must match the index `job_outcomes_carried_by_job`. */
const DUE_AT = `COALESCE(lease_expires_at, reconcile_due_at, available_at, created_at)`;

/** Operations that are due and that only their BullMQ job carries, the longest due first. */
export const CARRIED_BY_JOB = statement(
  'carried_by_job',
  `
SELECT tenant_id, operation_key, job_name, job_id, fencing_token, attempts, status, effect,
  (EXTRACT(EPOCH FROM ${DUE_AT}) * 1000000)::bigint::text AS due_us
FROM {schema}.job_outcomes
WHERE queue = :queue AND payload IS NULL AND origin = 'job'
  AND (status IN ('pending', 'running', 'retrying') OR reconcile_due_at IS NOT NULL)
  AND ${DUE_AT} <= clock_timestamp()
  AND (${DUE_AT}, tenant_id, operation_key) > (COALESCE(timestamptz 'epoch' + :seenDueUs::float8 * interval '1 microsecond', '-infinity'), :seenTenantId, :seenKey)
ORDER BY ${DUE_AT}, tenant_id, operation_key
LIMIT :limit
`,
);

/**
 * pending or retrying → retrying, doubtful: a worker may have run it without the ledger. No row means that it was
 * claimed since, and its claimant decides.
 */
export const SUSPECT = statement(
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
export interface CarriedOperation extends OperationIdentity {
  readonly jobName: string;
  readonly jobId: string;
  readonly token: number;
  readonly attempts: number;
  readonly status: OperationStatus;
  /** As its last attempt declared it. Undefined when there was no attempt. */
  readonly effect: Effect | undefined;
  /** When its job should have been delivered, in µs since 1970: the cursor of the next page. */
  readonly dueUs: string;
}

interface CarriedRow {
  readonly tenant_id: string;
  readonly operation_key: string;
  readonly job_name: string;
  readonly job_id: string;
  readonly fencing_token: string;
  readonly attempts: number;
  readonly status: OperationStatus;
  readonly effect: Effect | null;
  readonly due_us: string;
}

/** Reads and writes operations whose job may have ended without them. */
@Injectable()
export class EndedJobStore {
  constructor(private readonly database: Database) {}

  /** Operations that are due, the longest due first, after the one that was seen last. */
  async due(queue: string, seen: CarriedOperation | undefined, limit: number): Promise<CarriedOperation[]> {
    const { dueUs: seenDueUs, tenantId: seenTenantId = '', operationKey: seenKey = '' } = seen ?? {};
    const rows = await this.database.run<CarriedRow>(
      CARRIED_BY_JOB.with({ queue, seenDueUs, seenTenantId, seenKey, limit }),
    );
    return rows.map((row) => ({
      tenantId: row.tenant_id,
      operationKey: row.operation_key,
      jobName: row.job_name,
      jobId: row.job_id,
      token: Number(row.fencing_token),
      attempts: row.attempts,
      status: row.status,
      effect: row.effect ?? undefined,
      dueUs: row.due_us,
    }));
  }

  /**
   * Notes that a worker without the ledger may have run it. `repeatableMs` is that of its processor's rules. False when
   * it was claimed since.
   */
  async suspect(
    { tenantId, operationKey, token }: CarriedOperation,
    repeatableMs: number | null,
  ): Promise<boolean> {
    const call = SUSPECT.with({ tenantId, operationKey, token, repeatableMs });
    return (await this.database.run(call)).length > 0;
  }
}
