import { Inject, Injectable } from '@nestjs/common';
import { QueueRegistry } from '../producer/queue-registry.js';
import { RESOLVED_OPTIONS } from '../option-checks/resolved-options.token.js';
import { DEAD_LETTER_JOB_NAME, type DeadLetterMessage } from '../operation/dead-letter-message.js';
import { shownKey } from '../operation/origin.js';
import { Database } from '../ledger/postgres/database.js';
import { inMs, NOW, statement } from '../ledger/postgres/statement.js';
import type { ErrorEvidence } from '../operation/thrown.js';
import { alone, type DispatchSource, type DueJob, type Grouped, type Parcel } from './outbox-relay.js';
import type { QueuePort } from '../bullmq/queue-port.js';
import type { DispatchOptions } from './operation.source.js';

/** Takes dead letters that are due for their dead-letter queue. Parameters and concurrency as for operations. */
const TAKE = statement(
  'take_letters',
  `
WITH due AS (
  SELECT id
  FROM {schema}.dead_letters
  WHERE dispatch_due_at <= ${NOW} AND queue = ANY (:queues)
  ORDER BY dispatch_due_at
  LIMIT :limit
  FOR UPDATE SKIP LOCKED
)
UPDATE {schema}.dead_letters l
SET dispatch_due_at = ${inMs(':reserveMs')}
FROM due
WHERE l.id = due.id
RETURNING
  l.id AS "letterId", l.reason, l.queue, l.job_name AS "jobName", l.job_id AS "jobId", l.tenant_id AS "tenantId",
  l.operation_key AS "operationKey", l.attempts, l.payload, l.error, l.created_at AS "createdAt", l.step_of AS "stepOf", l.step,
  l.dispatches > 0 AS "wasPut", l.trace_context AS trace
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

interface LetterRow extends Omit<DeadLetterMessage, 'error' | 'createdAt' | 'stepOf' | 'step'> {
  readonly stepOf: string | null;
  readonly step: string | null;
  readonly error: ErrorEvidence | null;
  readonly createdAt: Date;
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
    const rows = await this.database.run<LetterRow>(TAKE.with({ queues, limit, reserveMs }));
    return rows.map((row) => ({ queue: this.targetOf(row.queue), job: toJob(row), row }));
  }

  async group(_port: QueuePort, due: readonly DueJob[]): Promise<Grouped> {
    return { parcels: alone(due), there: [] };
  }

  async mark(parcels: readonly Parcel[]): Promise<void> {
    const { redispatchAfterMs, redispatchMaxMs } = this.options.dispatch;
    const letterIds = parcels.flatMap(({ due }) => due.map(({ row }) => (row as LetterRow).letterId));
    await this.database.run(MARK.with({ letterIds, redispatchAfterMs, redispatchMaxMs }));
  }
}

function toJob({
  wasPut,
  trace,
  stepOf,
  step,
  error,
  createdAt,
  operationKey,
  ...row
}: LetterRow): DueJob['job'] {
  const message: DeadLetterMessage = {
    ...row,
    operationKey: operationKey === null ? null : shownKey(operationKey),
    ...(stepOf !== null && step !== null && { stepOf, step }),
    error: error === null ? null : { name: error.name, message: error.message },
    createdAt: createdAt.toISOString(),
  };
  return {
    name: DEAD_LETTER_JOB_NAME,
    jobId: row.letterId,
    data: message,
    delayMs: 0,
    priority: undefined,
    wasPut,
    trace,
  };
}
