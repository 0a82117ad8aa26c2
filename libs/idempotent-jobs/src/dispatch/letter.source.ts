import { Inject, Injectable } from '@nestjs/common';
import { QueueRegistry } from '../producer/queue-registry.js';
import { RESOLVED_OPTIONS } from '../options/resolved-options.token.js';
import { DEAD_LETTER_JOB_NAME } from '../operation/dead-letter-message.js';
import type { DeadLetterWithPayload } from '../dead-letters/dead-letter.js';
import { LETTER, messageOfLetter, readLetter } from '../dead-letters/letter.queries.js';
import { Database } from '../ledger/postgres/database.js';
import { inMs, statement } from '../ledger/postgres/statement.js';
import type { DispatchSource, DueJob } from './dispatch.source.js';
import type { DispatchOptions } from './operation.source.js';

/** Takes dead letters that are due for their dead-letter queue. Parameters and concurrency as for operations. */
const TAKE = statement(
  'take_letters',
  `
WITH due AS (
  SELECT id
  FROM {schema}.dead_letters
  WHERE dispatch_due_at <= clock_timestamp() AND queue = ANY (:queues)
  ORDER BY dispatch_due_at
  LIMIT :limit
  FOR UPDATE SKIP LOCKED
)
UPDATE {schema}.dead_letters l
SET dispatch_due_at = ${inMs(':reserveMs')}
FROM due
WHERE l.id = due.id
RETURNING ${LETTER}, l.payload, l.dispatches > 0 AS was_put, l.trace_context AS trace
`,
);

/**
 * Notes that letters are on their queue. Where the application listens with `@OnDeadLetter()`, an open letter is put there
 * again until a handler was told: first after `redispatchAfterMs`, then doubling up to `redispatchMaxMs`. Elsewhere it is
 * put there once; the evidence stays in the ledger, so a lost message loses nothing.
 */
const MARK = statement(
  'mark_letters',
  `
WITH put AS (
  SELECT id FROM {schema}.dead_letters WHERE id = ANY (:letterIds::uuid[]) ORDER BY id FOR UPDATE
)
UPDATE {schema}.dead_letters l SET
  dispatches      = l.dispatches + 1,
  dispatch_due_at = CASE
    WHEN l.notified_at IS NULL AND l.resolved_at IS NULL
      AND (SELECT listened_at > clock_timestamp() - interval '1 day' FROM {schema}.job_queues q WHERE q.queue = l.queue)
    THEN clock_timestamp() + LEAST(:redispatchAfterMs::float8 * 2 ^ LEAST(l.dispatches, 20), :redispatchMaxMs::float8) * interval '1 millisecond'
  END
FROM put WHERE l.id = put.id
`,
);

interface LetterRow extends DeadLetterWithPayload {
  readonly wasPut: boolean;
  readonly trace: unknown;
}

/** Dead letters on their way to their dead-letter queues. */
@Injectable()
export class LetterSource implements DispatchSource {
  readonly carriesRetries = false;

  readonly targetOf = (queue: string): string => this.queues.deadLetterQueueOf(queue);

  constructor(
    private readonly database: Database,
    private readonly queues: QueueRegistry,
    @Inject(RESOLVED_OPTIONS) private readonly options: Pick<DispatchOptions, 'dispatch'>,
  ) {}

  async take(queues: readonly string[], limit: number, reserveMs: number): Promise<DueJob[]> {
    const rows = await this.database.read<LetterRow>(TAKE.with({ queues, limit, reserveMs }));
    return rows.map((row) => ({ queue: this.targetOf(row.queue), job: toJob(row), row }));
  }

  async mark(jobs: readonly DueJob[]): Promise<void> {
    const { redispatchAfterMs, redispatchMaxMs } = this.options.dispatch;
    const letterIds = jobs.map((job) => (job.row as LetterRow).id);
    await this.database.run(MARK.with({ letterIds, redispatchAfterMs, redispatchMaxMs }));
  }
}

function toJob(row: LetterRow): DueJob['job'] {
  return {
    name: DEAD_LETTER_JOB_NAME,
    jobId: row.id,
    data: messageOfLetter(readLetter(row)),
    delayMs: 0,
    priority: undefined,
    wasPut: row.wasPut,
    trace: row.trace,
  };
}
