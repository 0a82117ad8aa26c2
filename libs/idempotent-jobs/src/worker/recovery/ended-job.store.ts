import { Injectable } from '@nestjs/common';
import type { Effect } from '../../operation/effect.js';
import type { OperationIdentity } from '../../operation/identity.js';
import type { OperationStatus } from '../../operation/status.js';
import { Database } from '../../ledger/postgres/database.js';
import { CARRIED_BY_JOB, SUSPECT } from './ended-job.statements.js';

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

/** Reads and writes operations whose job may have ended without them. */
@Injectable()
export class EndedJobStore {
  constructor(private readonly database: Database) {}

  /** Operations that are due, the longest due first, after the one that was seen last. */
  async due(queue: string, seen: CarriedOperation | undefined, limit: number): Promise<CarriedOperation[]> {
    const { dueUs: seenDueUs, tenantId: seenTenantId = '', operationKey: seenKey = '' } = seen ?? {};
    const rows = await this.database.read<CarriedOperation & { readonly fencingToken: string }>(
      CARRIED_BY_JOB.with({ queue, seenDueUs, seenTenantId, seenKey, limit }),
    );
    return rows.map((row) => ({ ...row, token: Number(row.fencingToken) }));
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
