import type { DeadLetterReason, RetryDecision } from '../operation/reasons.js';
import type { OperationIdentity } from '../operation/identity.js';
import type { Database } from '../ledger/postgres/database.js';
import { statement } from '../ledger/postgres/statement.js';
import type { ErrorEvidence } from '../operation/thrown.js';

/** One thing that happened to an operation. `at` is by the database's clock. */
export type HistoryEntry = { readonly at: Date } & (
  | { readonly kind: 'accepted'; readonly queue: string; readonly jobName: string }
  /** An attempt that did not succeed. `at` is its end. Attempts are counted anew after a redrive; tokens never are. */
  | {
      readonly kind: 'attempt_failed';
      readonly attempt: number;
      readonly fencingToken: number;
      readonly runId: string | undefined;
      readonly startedAt: Date | undefined;
      /**
       * `transient`, `in_doubt`, `permanent` …; `taken_over` if its lease ran out without a report; `surrendered` if
       * its process was late but had not vanished.
       */
      readonly failure: string;
      readonly reason: string | undefined;
      readonly error: ErrorEvidence | undefined;
      /** The wait before the next attempt, in ms. Undefined when there was none. */
      readonly delayMs: number | undefined;
      /** Why the operation was tried again, given up, or left in doubt. Undefined when its worker vanished. */
      readonly decision: RetryDecision | undefined;
    }
  /** The service was asked whether the effect of that attempt happened. */
  | {
      readonly kind: 'reconciled';
      readonly attempt: number;
      readonly fencingToken: number;
      readonly runId: string | undefined;
      /** `applied`, `not_applied`, `unknown`, or why there was no answer. */
      readonly reason: string | undefined;
      readonly error: ErrorEvidence | undefined;
      /** The wait before the next question, in ms. Undefined when there is none. */
      readonly delayMs: number | undefined;
    }
  | {
      readonly kind: 'running';
      readonly attempt: number;
      readonly fencingToken: number;
      readonly runId: string | undefined;
    }
  | {
      readonly kind: 'completed';
      readonly attempt: number;
      readonly runId: string | undefined;
      readonly startedAt: Date | undefined;
    }
  | {
      readonly kind: 'dead_lettered';
      readonly letterId: string;
      readonly reason: DeadLetterReason;
      readonly error: ErrorEvidence | undefined;
    }
  /** What an operator or a webhook did. */
  | {
      readonly kind: 'action';
      readonly action: string;
      readonly actor: string;
      readonly note: string;
      readonly letterId: string | undefined;
    }
);

/**
 * All that the ledger has recorded about an operation, in the order it happened. One statement, so that all of it is
 * from one snapshot.
 */
const HISTORY = statement(
  'history',
  `
WITH operation AS (
  SELECT * FROM {schema}.job_outcomes WHERE tenant_id = :tenantId AND operation_key = :operationKey
), entry AS (
  SELECT created_at AS at, 0 AS rank, json_build_object('kind', 'accepted', 'queue', queue, 'jobName', job_name) AS what
  FROM operation
  UNION ALL
  SELECT ended_at, 1, json_build_object(
    'kind', 'attempt_failed', 'attempt', attempt, 'fencingToken', fencing_token, 'runId', run_id,
    'startedAt', started_at, 'failure', kind, 'reason', reason, 'error', error, 'delayMs', delay_ms, 'decision', decision)
  FROM {schema}.job_attempts WHERE tenant_id = :tenantId AND operation_key = :operationKey AND kind <> 'reconciled'
  UNION ALL
  SELECT ended_at, 1, json_build_object(
    'kind', 'reconciled', 'attempt', attempt, 'fencingToken', fencing_token, 'runId', run_id,
    'reason', reason, 'error', error, 'delayMs', delay_ms)
  FROM {schema}.job_attempts WHERE tenant_id = :tenantId AND operation_key = :operationKey AND kind = 'reconciled'
  UNION ALL
  SELECT created_at, 2, json_build_object('kind', 'dead_lettered', 'letterId', id, 'reason', reason, 'error', error)
  FROM {schema}.dead_letters WHERE tenant_id = :tenantId AND operation_key = :operationKey
  UNION ALL
  SELECT at, 3, json_build_object('kind', 'action', 'action', action, 'actor', actor, 'note', note, 'letterId', letter_id)
  FROM {schema}.job_actions
  WHERE (tenant_id = :tenantId AND operation_key = :operationKey)
    OR letter_id IN (SELECT id FROM {schema}.dead_letters WHERE tenant_id = :tenantId AND operation_key = :operationKey)
  UNION ALL
  SELECT started_at, 4, json_build_object(
    'kind', 'running', 'attempt', attempts, 'fencingToken', fencing_token, 'runId', run_id)
  FROM operation WHERE status = 'running'
  UNION ALL
  SELECT settled_at, 4, json_build_object(
    'kind', 'completed', 'attempt', attempts, 'runId', run_id, 'startedAt', started_at)
  FROM operation WHERE status = 'completed'
)
SELECT at, what FROM entry ORDER BY at, rank
`,
);

/** Reads an operation's history. Empty when the ledger does not know the operation. */
export async function readHistory(
  database: Database,
  { tenantId, operationKey }: OperationIdentity,
): Promise<HistoryEntry[]> {
  const rows = await database.run<{ at: Date; what: Record<string, unknown> }>(
    HISTORY.with({ tenantId, operationKey }),
  );
  return rows.map(({ at, what }) => {
    const facts = Object.entries(what).map(([name, value]) => [
      name,
      name === 'startedAt' && value !== null ? new Date(value as string) : (value ?? undefined),
    ]);
    return { at, ...Object.fromEntries(facts) } as HistoryEntry;
  });
}
