import { Injectable } from '@nestjs/common';
import { Database } from '../../ledger/postgres/database.js';
import { statement } from '../../ledger/postgres/statement.js';
import type { AppDescription } from './describe-app.js';
import { type DoctorReport, reportOf } from './doctor-report.js';

/**
 * Records what the application says about its queues. A process that runs no processor of a queue leaves the report of
 * the process that does. Rows are locked in the order of their names, so that instances that boot together cannot
 * deadlock.
 */
const NOTE_QUEUES = statement(
  'note_queues',
  `
INSERT INTO {schema}.job_queues AS known
  (queue, dead_letter_queue, completed_retention_ms, letter_retention_ms, report, reported_at)
SELECT queue, dead_letter_queue, completed_ms, letters_ms,
  CASE WHEN speaks THEN report::json END, CASE WHEN speaks THEN clock_timestamp() END
FROM unnest(:queue::text[], :deadLetterQueue::text[], :completedMs::float8[], :lettersMs::float8[], :report::text[], :speaks::boolean[])
  AS said (queue, dead_letter_queue, completed_ms, letters_ms, report, speaks)
ORDER BY queue
ON CONFLICT (queue) DO UPDATE SET
  dead_letter_queue = excluded.dead_letter_queue,
  completed_retention_ms = excluded.completed_retention_ms,
  letter_retention_ms = excluded.letter_retention_ms,
  report = CASE WHEN excluded.reported_at IS NULL THEN known.report ELSE excluded.report END,
  reported_at = COALESCE(excluded.reported_at, known.reported_at),
  registered_at = clock_timestamp()
`,
);

/** The last report about each queue, in the order of their names. */
const QUEUE_REPORTS = statement(
  'queue_reports',
  'SELECT queue, report, reported_at FROM {schema}.job_queues ORDER BY queue',
);

/** What the application that last started a processor of a queue said about it. */
export interface QueueReport {
  readonly queue: string;
  /** Undefined, like its time, when no application has. */
  readonly report: DoctorReport | undefined;
  readonly reportedAt: Date | undefined;
}

/** Writes `job_queues`, in which applications describe their queues for tools that read the ledger from outside. */
@Injectable()
export class QueueDirectory {
  constructor(private readonly database: Database) {}

  /** @param report undefined when the doctor is off; earlier reports of the queues processed here are then deleted */
  async note(
    { queues, processors, plainProcessors }: AppDescription,
    report: DoctorReport | undefined,
  ): Promise<void> {
    if (queues.length === 0) return;
    const names = queues.map(({ name }) => name);
    const processed = new Set([...processors, ...plainProcessors].map(({ queue }) => queue));
    await this.database.run(
      NOTE_QUEUES.with({
        queue: names,
        deadLetterQueue: queues.map(({ deadLetterQueue }) => deadLetterQueue),
        completedMs: queues.map(({ retention }) => retention.completedMs),
        lettersMs: queues.map(({ retention }) => retention.lettersMs),
        report: names.map((name) => report && JSON.stringify(reportAbout(name, report, names))),
        speaks: names.map((name) => processed.has(name)),
      }),
    );
  }

  reports(): Promise<QueueReport[]> {
    return this.database.read(QUEUE_REPORTS.with({}));
  }
}

/** A report's findings about one queue, together with those about anything that has no row of its own in `job_queues`. */
function reportAbout(queue: string, { findings }: DoctorReport, registered: readonly string[]): DoctorReport {
  return reportOf(
    findings.filter(
      (finding) => finding.queue === null || finding.queue === queue || !registered.includes(finding.queue),
    ),
  );
}
