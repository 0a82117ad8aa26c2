import type { Author } from '../../operation/ledger-action.js';
import { type RunStatement, statement } from '../postgres/statement.js';

/** Begins every INSERT into the audit; a SELECT or VALUES follows. Runs in the transaction that it records. */
export const INTO_AUDIT = `INSERT INTO {schema}.job_actions
    (action, actor, note, redrive_id, queue, letter_id, tenant_id, operation_key, details)`;

/** Records one action of a person on one thing or many. */
const AUDIT = statement(
  'audit',
  `
${INTO_AUDIT}
SELECT :action, :actor, :note, :redriveId::uuid, e."queue", e."letterId", e."tenantId", e."operationKey", e."details"
FROM json_to_recordset(:entries::json)
  AS e ("queue" text, "letterId" uuid, "tenantId" text, "operationKey" text, "details" json)
`,
);

/** What an action was applied to. */
export interface AuditEntry {
  readonly queue: string | undefined;
  readonly letterId?: string | undefined;
  readonly tenantId?: string | undefined;
  readonly operationKey?: string | undefined;
  readonly details?: object | undefined;
}

/** Records who did something and why. `action` is one that the CHECK of `job_actions` allows. */
export async function audit(
  run: RunStatement,
  action: string,
  { actor, note }: Author,
  entries: readonly AuditEntry[],
  redriveId?: string,
): Promise<void> {
  if (entries.length > 0)
    await run(AUDIT.with({ action, actor, note, redriveId, entries: JSON.stringify(entries) }));
}
