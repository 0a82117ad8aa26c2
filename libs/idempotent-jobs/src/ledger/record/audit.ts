import type { Author } from '../../operation/ledger-action.js';
import { type RunStatement, statement } from '../postgres/statement.js';

/** The one way into the audit, for a SELECT or VALUES with these columns. It is part of the transaction that it is about. */
export const INTO_AUDIT = `INSERT INTO {schema}.job_actions
    (action, actor, note, redrive_id, queue, letter_id, tenant_id, operation_key, details)`;

/** What one person did, to one thing or many. */
const AUDIT = statement(
  'audit',
  `
${INTO_AUDIT}
SELECT :action, :actor, :note, :redriveId::uuid, e."queue", e."letterId", e."tenantId", e."operationKey", e."details"
FROM json_to_recordset(:entries::json)
  AS e ("queue" text, "letterId" uuid, "tenantId" text, "operationKey" text, "details" json)
`,
);

/** To what something was done. */
export interface AuditEntry {
  readonly queue: string | undefined;
  readonly letterId?: string | undefined;
  readonly tenantId?: string | undefined;
  readonly operationKey?: string | undefined;
  readonly details?: object | undefined;
}

/** Says who did it and why. `action` is one that the CHECK of `job_actions` knows. */
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
