import type { Job } from 'bullmq';
import type { OperationIdentity } from '../operation/identity.js';
import type { Database } from '../postgres/database.js';
import { statement } from '../postgres/statement.js';

/**
 * Whether the ledger can tell what became of an operation. Parameters: tenant, key, when its job could first run (ms since
 * 1970), retention in ms. A row tells; and where there is none, the operation has not completed if its job is younger
 * than any row that was pruned.
 */
const CAN_TELL = statement(
  'can_tell',
  `
SELECT EXISTS (SELECT FROM {schema}.job_outcomes WHERE tenant_id = $1 AND operation_key = $2)
  OR timestamptz 'epoch' + $3::float8 * interval '1 millisecond' > clock_timestamp() - $4::float8 * interval '1 millisecond'
  AS can_tell
`,
);

/**
 * The ledger forgets completed operations after their retention, but BullMQ may hold a job for longer: a failed one whose
 * operation was redriven under another job, say. Retried then, it would find no row and run a second time. So a job that
 * is older than the ledger's memory runs only if its operation is still known.
 */
export class Memory {
  constructor(private readonly database: Database) {}

  async canTell(identity: OperationIdentity, job: Job, retentionMs: number): Promise<boolean> {
    const availableAt = job.timestamp + (job.opts.delay ?? 0);
    // Nearly every job is young; how old exactly an old one is, the database's clock says.
    if (Date.now() - availableAt < retentionMs / 2) return true;
    const [row] = await this.database.run<{ can_tell: boolean }>(CAN_TELL, [
      identity.tenantId,
      identity.operationKey,
      availableAt,
      retentionMs,
    ]);
    return row?.can_tell === true;
  }
}
