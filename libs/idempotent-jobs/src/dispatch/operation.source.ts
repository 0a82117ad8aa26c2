import { Inject, Injectable } from '@nestjs/common';
import { RESOLVED_OPTIONS } from '../option-checks/resolved-options.token.js';
import type { RequestedOperation } from '../producer/operation.store.js';
import type { QueuePort } from '../bullmq/queue-port.js';
import { type BundleRules, bundleOf, grouped } from '../producer/bundle.js';
import { outgoingJob } from '../producer/outgoing.js';
import { QueueRegistry } from '../producer/queue-registry.js';
import { Database } from '../ledger/postgres/database.js';
import { inMs, ms, NOW, lookedUpByKey, rowsOf, sparse, statement } from '../ledger/postgres/statement.js';
import { Signer } from '../producer/signer.js';
import { identityAttributes, queueAttributes } from '../tracing/attributes.js';
import type { TraceCarrier, Tracing } from '../tracing/tracing.js';
import { alone, type DispatchSource, type DueJob, type Grouped, type Parcel } from './outbox-relay.js';

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
  WHERE dispatch_due_at <= ${NOW} AND queue = ANY (:queues)
  ORDER BY dispatch_due_at
  LIMIT :limit
  FOR UPDATE SKIP LOCKED
)
UPDATE {schema}.job_outcomes o
SET dispatch_due_at = ${inMs(':reserveMs')}
FROM due
WHERE o.tenant_id = due.tenant_id AND o.operation_key = due.operation_key AND ${lookedUpByKey('due.operation_key')}
RETURNING
  o.tenant_id AS "tenantId", o.operation_key AS "operationKey", o.queue, o.job_name AS "jobName", o.job_id AS "jobId",
  o.fingerprint, o.payload::text AS payload, o.priority, ${ms('o.created_at')} AS "rowMs", o.deadline_at AS deadline,
  o.trace_context::text AS trace, o.retry_policy AS "retryPolicy", o.dispatches > 0 AS "wasPut",
  o.bundle_id AS "bundleId",
  o.redrives > 0 AS "wasRedriven", o.last_trace AS "lastTrace",
  GREATEST(0, ${ms('COALESCE(o.reconcile_due_at, o.available_at) - clock_timestamp()')}) AS "delayMs"
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
  FROM ${rowsOf('p', 'tenantId text', 'operationKey text', 'jobId text', 'bundleId text')}
  CROSS JOIN LATERAL (
    SELECT FROM {schema}.job_outcomes o
    WHERE o.tenant_id = p.tenant_id AND o.operation_key = p.operation_key AND o.job_id = p.job_id
      AND o.dispatch_due_at IS NOT NULL
    LIMIT 1
    FOR UPDATE SKIP LOCKED
  ) o
)
UPDATE {schema}.job_outcomes o
SET dispatch_due_at = GREATEST(clock_timestamp(), COALESCE(o.reconcile_due_at, o.available_at))
      + LEAST(:redispatchAfterMs::float8 * 2 ^ LEAST(o.dispatches, 20), :redispatchMaxMs::float8) * interval '1 millisecond',
    dispatches = o.dispatches + 1,
    bundle_id = put.bundle_id
FROM put
WHERE o.tenant_id = put.tenant_id AND o.operation_key = put.operation_key AND ${lookedUpByKey('put.operation_key')}
`,
);

interface OperationRow extends Pick<
  RequestedOperation,
  'tenantId' | 'operationKey' | 'queue' | 'jobName' | 'jobId' | 'fingerprint' | 'payload'
> {
  readonly priority: number | null;
  readonly rowMs: number;
  readonly deadline: Date | null;
  readonly trace: string | null;
  readonly retryPolicy: string | null;
  readonly wasPut: boolean;
  readonly bundleId: string | null;
  readonly wasRedriven: boolean;
  readonly lastTrace: string | null;
  readonly delayMs: number | null;
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
    private readonly queues: QueueRegistry,
    @Inject(RESOLVED_OPTIONS) private readonly options: DispatchOptions,
  ) {}

  async take(queues: readonly string[], limit: number, reserveMs: number): Promise<DueJob[]> {
    const rows = await this.database.run<OperationRow>(TAKE.with({ queues, limit, reserveMs }));
    const dueOf = (row: OperationRow, redriveTrace?: TraceCarrier): DueJob => {
      const { queue, rowMs, wasPut } = row;
      const job = outgoingJob(operationOf(row), { signer: this.signer, rowMs, wasPut, redriveTrace });
      return { queue, job, row };
    };
    const { tracing } = this.options;
    if (tracing === undefined) return rows.map((row) => dueOf(row));
    return Promise.all(rows.map(async (row) => dueOf(row, await redriveTrace(tracing, row))));
  }

  async group(port: QueuePort, due: readonly DueJob[]): Promise<Grouped> {
    const rules = this.queues.bundlesOf(port.name);
    const places = new Map<DueJob, Place>();
    const bundles = new Map<string, Promise<boolean>>();
    await Promise.all(due.map(async (one) => places.set(one, await placeOf(one, port, rules, bundles))));
    const of = (place: Place): DueJob[] => due.filter((one) => places.get(one) === place);
    const groups = grouped(
      of('none').map((one) => ({ one, ...operationOf(rowOf(one)) })),
      rules,
      port.maxDataBytes,
    );
    return {
      parcels: [...alone(of('own')), ...groups.map((group) => parcelOf(group.map(({ one }) => one)))],
      there: of('bundle').map((one) => ({ job: one.job, due: [one], bundleId: rowOf(one).bundleId })),
    };
  }

  async mark(parcels: readonly Parcel[]): Promise<void> {
    const rows = parcels.flatMap(({ due, bundleId = null }) =>
      due.map((one) => ({ ...rowOf(one), bundleId })),
    );
    const { redispatchAfterMs, redispatchMaxMs } = this.options.dispatch;
    await this.database.run(
      MARK.with({
        tenantId: rows.map((row) => row.tenantId),
        operationKey: rows.map((row) => row.operationKey),
        jobId: rows.map((row) => row.jobId),
        bundleId: sparse(rows.map((row) => row.bundleId)),
        redispatchAfterMs,
        redispatchMaxMs,
      }),
    );
  }
}

/** Where BullMQ has an operation that was put there before: in a job of its own, in a bundle, or nowhere. */
type Place = 'own' | 'bundle' | 'none';

/** `bundles` keeps the answers, because the operations of a bundle mostly become due together. */
async function placeOf(
  one: DueJob,
  port: QueuePort,
  rules: BundleRules | undefined,
  bundles: Map<string, Promise<boolean>>,
): Promise<Place> {
  const { wasPut, bundleId, jobId } = rowOf(one);
  if (!wasPut) return 'none';
  // Putting it again changes nothing where BullMQ has it.
  if (rules === undefined && bundleId === null) return 'own';
  if ((await port.contents.endOf(jobId)) !== 'gone') return 'own';
  if (bundleId === null) return 'none';
  let isThere = bundles.get(bundleId);
  if (isThere === undefined) {
    isThere = port.contents.endOf(bundleId).then((end) => end === undefined);
    bundles.set(bundleId, isThere);
  }
  return (await isThere) ? 'bundle' : 'none';
}

function parcelOf(due: readonly DueJob[]): Parcel {
  if (due.length === 1) return { job: (due[0] as DueJob).job, due };
  const job = bundleOf(due.map((one) => one.job));
  return { job, due, bundleId: job.jobId };
}

function rowOf({ row }: DueJob): OperationRow {
  return row as OperationRow;
}

/**
 * The trace that a redrive begins, linked to those of the request and of the last attempt, which may be long over.
 * Undefined when the operation was not redriven.
 */
async function redriveTrace(tracing: Tracing, row: OperationRow): Promise<TraceCarrier | undefined> {
  if (!row.wasRedriven) return undefined;
  const { queue, jobId, trace, lastTrace } = row;
  const attributes = {
    ...queueAttributes(queue, 'send', 'redrive'),
    'messaging.message.id': jobId,
    ...identityAttributes(row),
  };
  const links = [trace === null ? undefined : JSON.parse(trace), lastTrace ?? undefined];
  return tracing.span({ name: `redrive ${queue}`, kind: 'producer', attributes, links }, async () =>
    tracing.carrier(),
  );
}

function operationOf(row: OperationRow): RequestedOperation {
  return {
    ...row,
    priority: row.priority ?? undefined,
    delayMs: row.delayMs ?? undefined,
    deadline: row.deadline ?? undefined,
    trace: row.trace ?? undefined,
    retryPolicy: row.retryPolicy ?? undefined,
  };
}
