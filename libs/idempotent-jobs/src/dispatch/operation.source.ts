import { Inject, Injectable } from '@nestjs/common';
import { RESOLVED_OPTIONS } from '../options/resolved-options.token.js';
import { outgoingJob } from '../producer/outgoing.js';
import { Database } from '../ledger/postgres/database.js';
import { inMs, ms, rowsOf, statement } from '../ledger/postgres/statement.js';
import { Signer } from '../producer/signer.js';
import { toDateOrNone } from '../ledger/postgres/to-date.js';
import { identityAttributes, queueAttributes } from '../tracing/attributes.js';
import type { TraceCarrier, Tracing } from '../tracing/tracing.js';
import type { DispatchSource, DueJob } from './outbox-relay.js';

/**
 * Takes operations that are due for their queue and moves their due time into the future. If the dispatcher dies before
 * the mark, they are taken again then. SKIP LOCKED: instances share the work and never wait for each other.
 */
const TAKE = statement(
  'take_operations',
  `
WITH due AS (
  SELECT tenant_id, operation_key
  FROM {schema}.job_outcomes
  WHERE dispatch_due_at <= clock_timestamp() AND queue = ANY (:queues)
  ORDER BY dispatch_due_at
  LIMIT :limit
  FOR UPDATE SKIP LOCKED
)
UPDATE {schema}.job_outcomes o
SET dispatch_due_at = ${inMs(':reserveMs')}
FROM due
WHERE o.tenant_id = due.tenant_id AND o.operation_key = due.operation_key
RETURNING
  o.tenant_id, o.operation_key, o.queue, o.job_name, o.job_id, o.fingerprint, o.payload::text AS payload, o.priority,
  ${ms('o.created_at')} AS row_ms, o.deadline_at, o.trace_context::text AS trace, o.retry_policy, o.dispatches > 0 AS was_put,
  o.redrives > 0 AS was_redriven, o.last_trace,
  GREATEST(0, ${ms('COALESCE(o.reconcile_due_at, o.available_at) - clock_timestamp()')}) AS delay_ms
`,
);

/**
 * Notes that operations are on their queue. They become due again in case the queue loses them: first after
 * `redispatchAfterMs`, then doubling up to `redispatchMaxMs`, counted from the time they may run. An operation that was
 * settled meanwhile is not written; one that was redriven meanwhile stays due for its new job. SKIP LOCKED: a handler may
 * hold a row for as long as it runs, and the batch must not wait for it; that operation is put once more, which is
 * harmless.
 */
const MARK = statement(
  'mark_operations',
  `
WITH put AS (
  SELECT p.*
  FROM ${rowsOf('p', 'tenantId text', 'operationKey text', 'jobId text')}
  CROSS JOIN LATERAL (
    SELECT FROM {schema}.job_outcomes o
    WHERE o.tenant_id = p.tenant_id AND o.operation_key = p.operation_key AND o.job_id = p.job_id
      AND o.dispatch_due_at IS NOT NULL
    FOR UPDATE SKIP LOCKED
  ) o
)
UPDATE {schema}.job_outcomes o
SET dispatch_due_at = GREATEST(clock_timestamp(), COALESCE(o.reconcile_due_at, o.available_at))
      + LEAST(:redispatchAfterMs::float8 * 2 ^ LEAST(o.dispatches, 20), :redispatchMaxMs::float8) * interval '1 millisecond',
    dispatches = o.dispatches + 1
FROM put
WHERE o.tenant_id = put.tenant_id AND o.operation_key = put.operation_key
`,
);

interface OperationRow {
  readonly tenant_id: string;
  readonly operation_key: string;
  readonly queue: string;
  readonly job_name: string;
  readonly job_id: string;
  readonly fingerprint: string;
  readonly payload: string;
  readonly priority: number | null;
  readonly row_ms: number;
  readonly deadline_at: Date | null;
  readonly trace: string | null;
  readonly retry_policy: string | null;
  readonly was_put: boolean;
  readonly was_redriven: boolean;
  readonly last_trace: string | null;
  readonly delay_ms: number | null;
}

/** What the sources need of the application's options. */
export interface DispatchOptions {
  readonly dispatch: {
    /** When an operation that is on its queue is put there again, in ms. Putting it again is harmless. */
    readonly redispatchAfterMs: number;
    /** The time between puts doubles up to this, in ms. */
    readonly redispatchMaxMs: number;
  };
  readonly tracing: Tracing | undefined;
}

/** Operations on their way to their queues. */
@Injectable()
export class OperationSource implements DispatchSource {
  readonly carriesRetries = true;
  readonly targetOf = (queue: string): string => queue;

  constructor(
    private readonly database: Database,
    private readonly signer: Signer,
    @Inject(RESOLVED_OPTIONS) private readonly options: DispatchOptions,
  ) {}

  async take(queues: readonly string[], limit: number, reserveMs: number): Promise<DueJob[]> {
    const rows = await this.database.run<OperationRow>(TAKE.with({ queues, limit, reserveMs }));
    const dueOf = (row: OperationRow, trace?: TraceCarrier): DueJob => ({
      queue: row.queue,
      job: this.#jobOf(row, trace),
      row,
    });
    const { tracing } = this.options;
    if (tracing === undefined) return rows.map((row) => dueOf(row));
    return Promise.all(rows.map(async (row) => dueOf(row, await redriveTrace(tracing, row))));
  }

  #jobOf(row: OperationRow, redriveTrace: TraceCarrier | undefined): DueJob['job'] {
    const { row_ms: rowMs, was_put: wasPut } = row;
    return outgoingJob(operationOf(row), { signer: this.signer, rowMs, wasPut, redriveTrace });
  }

  async mark(jobs: readonly DueJob[]): Promise<void> {
    const rows = jobs.map((job) => job.row as OperationRow);
    const { redispatchAfterMs, redispatchMaxMs } = this.options.dispatch;
    await this.database.run(
      MARK.with({
        tenantId: rows.map((row) => row.tenant_id),
        operationKey: rows.map((row) => row.operation_key),
        jobId: rows.map((row) => row.job_id),
        redispatchAfterMs,
        redispatchMaxMs,
      }),
    );
  }
}

/**
 * The trace that a redrive begins, linked to those of the request and of the last attempt, which may be long over.
 * Undefined when the operation was not redriven.
 */
async function redriveTrace(tracing: Tracing, row: OperationRow): Promise<TraceCarrier | undefined> {
  if (!row.was_redriven) return undefined;
  const { queue, job_id, tenant_id: tenantId, operation_key: operationKey, trace, last_trace } = row;
  const attributes = {
    ...queueAttributes(queue, 'send', 'redrive'),
    'messaging.message.id': job_id,
    ...identityAttributes({ tenantId, operationKey }),
  };
  const links = [trace === null ? undefined : JSON.parse(trace), last_trace ?? undefined];
  return tracing.span({ name: `redrive ${queue}`, kind: 'producer', attributes, links }, async () =>
    tracing.carrier(),
  );
}

function operationOf(row: OperationRow): Parameters<typeof outgoingJob>[0] {
  return {
    tenantId: row.tenant_id,
    operationKey: row.operation_key,
    queue: row.queue,
    jobName: row.job_name,
    jobId: row.job_id,
    fingerprint: row.fingerprint,
    payload: row.payload,
    priority: row.priority ?? undefined,
    delayMs: row.delay_ms ?? 0,
    deadline: toDateOrNone(row.deadline_at),
    trace: row.trace ?? undefined,
    retryPolicy: row.retry_policy ?? undefined,
  };
}
