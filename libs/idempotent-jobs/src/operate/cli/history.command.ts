import { type HistoryEntry, readHistory } from '../../outcome/history.js';
import { assertName } from '../../operation/identity.js';
import type { Command } from './command.js';
import { textTable } from './text-table.js';

/** All that the ledger has written about one operation. */
export const history: Command = {
  name: 'history',
  summary: 'show what has happened to one operation: attempts, letters, and what people did',
  options: {
    tenant: { value: '<id>', help: 'whose operation it is (required)' },
    key: { value: '<key>', help: 'its operation key (required)' },
    step: { value: '<name>', help: 'the step of that operation' },
  },
  async run({ values, database }) {
    const step = values.text('step');
    const operation = {
      tenantId: values.required('tenant'),
      operationKey: values.required('key'),
      ...(step !== undefined && { step }),
    };
    const entries = await readHistory(database, assertName(operation));
    return {
      exitCode: entries.length > 0 ? 0 : 1,
      json: { ...operation, entries },
      lines:
        entries.length > 0
          ? textTable(
              ['at', 'what', 'details'],
              entries.map((entry) => [entry.at, entry.kind, detailsOf(entry)]),
            )
          : [`The ledger knows no operation "${operation.operationKey}" of tenant "${operation.tenantId}".`],
    };
  },
};

function detailsOf(entry: HistoryEntry): string {
  switch (entry.kind) {
    case 'accepted':
      return `${entry.jobName} on ${entry.queue}`;
    case 'attempt_failed':
      return [
        `attempt ${entry.attempt}: ${entry.failure}`,
        ...(entry.decision === undefined ? [] : [entry.decision]),
        ...(entry.error === undefined ? [] : [entry.error.message]),
      ].join(', ');
    case 'asked':
      return `about attempt ${entry.attempt}: ${entry.reason}`;
    case 'running':
    case 'completed':
      return `attempt ${entry.attempt}`;
    case 'buried':
      return `${entry.reason}, letter ${entry.letterId}`;
    case 'action':
      return `${entry.action} by ${entry.actor}: ${entry.note}`;
    default:
      return entry satisfies never;
  }
}
