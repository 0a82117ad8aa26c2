import type { Database } from '../../ledger/postgres/database.js';
import { statement } from '../../ledger/postgres/statement.js';
import { toDate } from '../../ledger/postgres/to-date.js';

/** Where a queue stands, by the ledger. */
export interface LedgerStatus {
  readonly queue: string;
  /** Undefined for a queue that no application has registered. */
  readonly deadLetterQueue: string | undefined;
  /** Operations that the ledger delivers and that are not settled. */
  readonly pending: number;
  readonly retrying: number;
  readonly running: number;
  readonly inDoubt: number;
  readonly openLetters: number;
  readonly oldestLetterAt: Date | undefined;
}

/** All queues that the ledger knows of, each from a partial index: settled operations, however many, are not looked at. */
const LEDGER_STATUS = statement(
  'ledger_status',
  `
WITH open AS (
  SELECT queue,
    count(*) FILTER (WHERE status = 'pending') AS pending,
    count(*) FILTER (WHERE status = 'retrying') AS retrying,
    count(*) FILTER (WHERE status = 'running') AS running
  FROM {schema}.job_outcomes WHERE dispatch_due_at IS NOT NULL GROUP BY queue
), doubted AS (
  SELECT queue, count(*) AS in_doubt FROM {schema}.job_outcomes WHERE status = 'in_doubt' GROUP BY queue
), letters AS (
  SELECT queue, count(*) AS open_letters, min(created_at) AS oldest_letter_at
  FROM {schema}.dead_letters WHERE resolved_at IS NULL GROUP BY queue
), known AS (
  SELECT queue, dead_letter_queue FROM {schema}.job_queues
)
SELECT queue, dead_letter_queue,
  COALESCE(pending, 0)::integer AS pending, COALESCE(retrying, 0)::integer AS retrying,
  COALESCE(running, 0)::integer AS running, COALESCE(in_doubt, 0)::integer AS in_doubt,
  COALESCE(open_letters, 0)::integer AS open_letters, oldest_letter_at
FROM known FULL JOIN open USING (queue) FULL JOIN doubted USING (queue) FULL JOIN letters USING (queue)
ORDER BY queue
`,
);

interface StatusRow {
  readonly queue: string;
  readonly dead_letter_queue: string | null;
  readonly pending: number;
  readonly retrying: number;
  readonly running: number;
  readonly in_doubt: number;
  readonly open_letters: number;
  readonly oldest_letter_at: Date | null;
}

export async function ledgerStatus(database: Database): Promise<LedgerStatus[]> {
  const rows = await database.run<StatusRow>(LEDGER_STATUS.with({}));
  return rows.map((row) => ({
    queue: row.queue,
    deadLetterQueue: row.dead_letter_queue ?? undefined,
    pending: row.pending,
    retrying: row.retrying,
    running: row.running,
    inDoubt: row.in_doubt,
    openLetters: row.open_letters,
    oldestLetterAt: row.oldest_letter_at === null ? undefined : toDate(row.oldest_letter_at),
  }));
}
