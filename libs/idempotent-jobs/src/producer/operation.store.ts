import { Injectable } from '@nestjs/common';
import { hash } from 'node:crypto';
import { identityKeyOf, type OperationIdentity } from '../operation/identity.js';
import type { OperationStatus } from '../operation/status.js';
import { Database, type Queryable } from '../ledger/postgres/database.js';
import {
  type Call,
  type RunStatement,
  inMs,
  locked,
  ms,
  lookedUpByKey,
  rowsOf,
  sparse,
  statement,
} from '../ledger/postgres/statement.js';
import { type BundleRules, bundleIdOf, grouped } from './bundle.js';
import { chunksOf } from './chunks.js';

/**
 * (none) → pending: writes requested operations, once each.
 *
 * One row per element comes back; `is_new` says whether this statement wrote it. Otherwise the columns show the operation
 * that has the key. They are null when a rival has written it since the statement's snapshot, and the caller asks again.
 *
 * Safe under concurrency: rivals meet on the unique index. ON CONFLICT DO NOTHING waits for an uncommitted row, and fails
 * with a lock timeout when that transaction does not end in time.
 *
 * NULL for `:redispatchAfterMs` makes them due for the dispatcher at once; otherwise the same transaction puts them on
 * their queue. NULL for `:lockTimeout` keeps the transaction's own.
 */
const ACCEPT = statement(
  'accept',
  `
WITH patience AS MATERIALIZED (
  SELECT set_config('lock_timeout', COALESCE(:lockTimeout, current_setting('lock_timeout')), true) AS lock_timeout
), asked AS (
  SELECT a.* FROM patience CROSS JOIN ${rowsOf('a', 'tenantId text', 'operationKey text', 'jobName text', 'jobId text', 'fingerprint text', 'payload text', 'priority integer', 'delayMs float8', 'deadlineAt timestamptz', 'traceContext text', 'retryPolicy text', 'bundleId text')}
), accepted AS (
  INSERT INTO {schema}.job_outcomes (
    tenant_id, operation_key, origin, queue, job_name, job_id, fingerprint, status, payload, priority, available_at, deadline_at,
    has_own_deadline, trace_context, retry_policy, bundle_id, dispatch_due_at, dispatches
  )
  SELECT
    tenant_id, operation_key, 'job', :queue, job_name, job_id, fingerprint, 'pending', payload::json, priority,
    ${inMs('delay_ms')}, deadline_at,
    deadline_at IS NOT NULL, trace_context::json, retry_policy, bundle_id,
    CASE
      WHEN :redispatchAfterMs::float8 IS NULL THEN clock_timestamp()
      ELSE clock_timestamp() + (COALESCE(delay_ms, 0) + :redispatchAfterMs) * interval '1 millisecond'
    END,
    CASE WHEN :redispatchAfterMs IS NULL THEN 0 ELSE 1 END
  FROM asked
  ORDER BY tenant_id, operation_key
  ON CONFLICT (tenant_id, operation_key) DO NOTHING
  RETURNING tenant_id, operation_key, job_id, created_at
)
SELECT
  acc.tenant_id IS NOT NULL AS is_new,
  COALESCE(acc.job_id, o.job_id) AS job_id,
  ${ms('acc.created_at')} AS row_ms,
  o.fingerprint,
  o.queue,
  o.status,
  o.result
FROM asked a
LEFT JOIN accepted acc ON acc.operation_key = a.operation_key AND acc.tenant_id = a.tenant_id
LEFT JOIN LATERAL (
  SELECT o.job_id, o.fingerprint, o.queue, o.status, o.result::text AS result
  FROM {schema}.job_outcomes o
  WHERE acc.tenant_id IS NULL AND o.tenant_id = a.tenant_id AND o.operation_key = a.operation_key
  LIMIT 1
) o ON true
ORDER BY a.n
`,
);

/**
 * SKIP LOCKED: a handler may hold its row. Where the bundle is still noted, the depths of queues are off by that operation,
 * and if its own job is lost, it is put again only when the bundle has ended.
 */
const UNBUNDLE = statement(
  'unbundle',
  `
WITH apart AS (
  ${locked(rowsOf('a', 'tenantId text', 'operationKey text'), 'o.bundle_id IS NOT NULL')}
)
UPDATE {schema}.job_outcomes o SET bundle_id = NULL
FROM apart a
WHERE o.tenant_id = a.tenant_id AND o.operation_key = a.operation_key AND ${lookedUpByKey('a.operation_key')}
`,
);

/** Wakes the dispatchers of all instances when the surrounding transaction commits. */
export const ANNOUNCE = statement('announce', 'SELECT pg_notify(:channel, :queue)');

/** A request for an operation, checked and ready to be written. */
export interface RequestedOperation extends OperationIdentity {
  readonly queue: string;
  readonly jobName: string;
  readonly jobId: string;
  readonly fingerprint: string;
  /** JSON text, as stored: encrypted, where encryption is on. */
  readonly payload: string;
  readonly priority: number | undefined;
  readonly delayMs: number | undefined;
  readonly deadline: Date | undefined;
  /** JSON text. */
  readonly trace: string | undefined;
  /** The name of its retry policy. Undefined means the processor's. */
  readonly retryPolicy: string | undefined;
}

/** Where an operation stands after it was asked for. */
export type AcceptedOperation = Acceptance &
  Pick<RequestedOperation, 'tenantId' | 'operationKey' | 'jobId' | 'jobName'>;

type Acceptance =
  | { readonly kind: 'new' }
  /** The operation existed before. `resultText` is set when it has completed: JSON, as stored. */
  | {
      readonly kind: 'duplicate';
      readonly status: OperationStatus;
      readonly resultText: string | undefined;
    }
  /** The key belongs to another request; nothing was written for this one. */
  | { readonly kind: 'conflict' };

/** An operation whose row was just written. */
export interface WrittenOperation extends RequestedOperation {
  /** When the row was written, in ms since 1970 by the database's clock. */
  readonly rowMs: number;
  /** The bundle that carries it. Undefined when it has a job of its own. */
  readonly bundleId: string | undefined;
}

/** Puts operations on their queue in the transaction that writes their rows, so that no dispatcher has to. */
export interface Handover {
  /** When operations that are not settled are put on their queue again, in ms after the time they may run. */
  readonly redispatchAfterMs: number;
  readonly put: (operations: readonly WrittenOperation[]) => Promise<void>;
  /** Undefined where each operation has a job of its own. */
  readonly bundle: BundleRules | undefined;
  /** The largest data of a job, in bytes. Undefined where there is no limit. */
  readonly maxDataBytes: number | undefined;
}

/** The dispatchers' NOTIFY channel. Each schema has its own. */
export function dispatchChannel(schema: string): string {
  // Postgres cuts names at 63 bytes, and the schema's name alone may have that many.
  return `idempotent_jobs_${hash('sha256', schema, 'base64url').slice(0, 32)}`;
}

/** Writes requested operations to the ledger. */
@Injectable()
export class OperationStore {
  constructor(private readonly database: Database) {}

  /** Runs statements on the pool, each a transaction of its own. */
  readonly onPool: RunStatement = (call) => this.database.run(call);

  /** Runs statements on a connection, in whatever transaction it has open. */
  on(connection: Queryable): RunStatement {
    return (call) => this.database.run(call, connection);
  }

  /**
   * Writes operations of one queue, or finds the existing ones. With a handover, new ones are put on their queue as well.
   *
   * Each operation gets a job id that no job had before: BullMQ may still hold the finished job of an operation that had
   * this key until the ledger forgot it, and would ignore a new job of the same id.
   *
   * `rowLockMs`: how long to wait for a row that another transaction is writing. Undefined keeps the transaction's own
   * limit.
   */
  async accept(
    run: RunStatement,
    requested: Iterable<RequestedOperation>,
    { handover, rowLockMs }: { handover?: Handover; rowLockMs?: number } = {},
  ): Promise<AcceptedOperation[]> {
    const accepted: AcceptedOperation[] = [];
    const fingerprints = new Map<string, string>();
    const life = Date.now().toString(36);
    for (const asking of chunksOf(requested)) {
      const chunk = asking.map((operation) => ({ ...operation, jobId: `${operation.jobId}-${life}` }));
      const bundleIds = bundleIdsOf(chunk, handover);
      const call = acceptCall(chunk, bundleIds, handover?.redispatchAfterMs, rowLockMs);
      let rows = await run<AcceptRow>(call);
      // A rival's row was not in the snapshot yet; the next statement's snapshot has it.
      if (rows.some((row) => !row.is_new && row.status === null)) {
        const seen = await run<AcceptRow>(call);
        rows = rows.map((row, index) => (row.is_new ? row : (seen[index] as AcceptRow)));
      }
      const added: WrittenOperation[] = [];
      for (const [index, operation] of chunk.entries()) {
        const row = rows[index] as AcceptRow;
        const answer = settleTwin(operation, read(operation, row), fingerprints);
        if (answer.kind === 'new')
          added.push({ ...operation, rowMs: row.row_ms as number, bundleId: bundleIds.get(operation) });
        const { tenantId, operationKey, jobName } = operation;
        // The job that carries the operation may have existed before.
        accepted.push({ tenantId, operationKey, jobName, jobId: row.job_id ?? operation.jobId, ...answer });
      }
      if (handover !== undefined && added.length > 0)
        await handover.put(await this.#whole(run, added, bundleIds));
    }
    return accepted;
  }

  /** Operations whose bundle would lack some that existed before get jobs of their own. */
  async #whole(
    run: RunStatement,
    added: readonly WrittenOperation[],
    bundleIds: ReadonlyMap<RequestedOperation, string>,
  ): Promise<readonly WrittenOperation[]> {
    const planned = countsOf(bundleIds.values());
    const found = countsOf(added.flatMap(({ bundleId }) => bundleId ?? []));
    const isWhole = ({ bundleId }: WrittenOperation): boolean =>
      bundleId === undefined || planned.get(bundleId) === found.get(bundleId);
    const apart = added.filter((operation) => !isWhole(operation));
    if (apart.length === 0) return added;
    await run(unbundle(apart));
    return added.map((operation) => (isWhole(operation) ? operation : { ...operation, bundleId: undefined }));
  }

  /** Wakes the dispatchers of all instances once the transaction commits. */
  async announce(run: RunStatement, queue: string): Promise<void> {
    await run(ANNOUNCE.with({ channel: dispatchChannel(this.database.schema), queue }));
  }
}

interface AcceptRow {
  readonly is_new: boolean;
  readonly job_id: string | null;
  /** Null unless the operation is new. */
  readonly row_ms: number | null;
  readonly fingerprint: string | null;
  readonly queue: string | null;
  readonly status: OperationStatus | null;
  readonly result: string | null;
}

/** Notes that operations are on their queue by themselves. */
export function unbundle(operations: readonly OperationIdentity[]): Call {
  return UNBUNDLE.with({
    tenantId: operations.map((operation) => operation.tenantId),
    operationKey: operations.map((operation) => operation.operationKey),
  });
}

function countsOf(values: Iterable<string>): Map<string, number> {
  const counts = new Map<string, number>();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return counts;
}

/** The bundles that the operations would be put in if all of them are new. */
function bundleIdsOf(
  requested: readonly RequestedOperation[],
  { bundle, maxDataBytes }: Partial<Handover> = {},
): Map<RequestedOperation, string> {
  const ids = new Map<RequestedOperation, string>();
  if (bundle === undefined) return ids;
  for (const group of grouped(requested, bundle, maxDataBytes)) {
    if (group.length === 1) continue;
    const id = bundleIdOf(group);
    for (const operation of group) ids.set(operation, id);
  }
  return ids;
}

function acceptCall(
  requested: readonly RequestedOperation[],
  bundleIds: ReadonlyMap<RequestedOperation, string>,
  redispatchAfterMs: number | undefined,
  rowLockMs: number | undefined,
): Call {
  return ACCEPT.with({
    queue: requested[0]?.queue,
    tenantId: requested.map((operation) => operation.tenantId),
    operationKey: requested.map((operation) => operation.operationKey),
    jobName: requested.map((operation) => operation.jobName),
    jobId: requested.map((operation) => operation.jobId),
    fingerprint: requested.map((operation) => operation.fingerprint),
    payload: requested.map((operation) => operation.payload),
    priority: requested.map((operation) => operation.priority ?? null),
    delayMs: requested.map((operation) => operation.delayMs ?? null),
    deadlineAt: requested.map((operation) => operation.deadline ?? null),
    traceContext: requested.map((operation) => operation.trace ?? null),
    retryPolicy: requested.map((operation) => operation.retryPolicy ?? null),
    bundleId: sparse(requested.map((operation) => bundleIds.get(operation) ?? null)),
    redispatchAfterMs,
    lockTimeout: rowLockMs === undefined ? null : `${rowLockMs}ms`,
  });
}

function read(operation: RequestedOperation, row: AcceptRow): Acceptance {
  if (row.is_new) return { kind: 'new' };
  // On another queue, another processor would run it: that is another request, whatever its payload.
  if (row.fingerprint !== operation.fingerprint || row.queue !== operation.queue) return { kind: 'conflict' };
  return { kind: 'duplicate', status: row.status ?? 'pending', resultText: row.result ?? undefined };
}

/**
 * Of several requests with one key in one call, the first is the operation. The statement calls all of them new, so the
 * later ones become duplicates or conflicts here. `fingerprints`: those of the requests before this one.
 */
function settleTwin(
  operation: RequestedOperation,
  answer: Acceptance,
  fingerprints: Map<string, string>,
): Acceptance {
  const key = identityKeyOf(operation);
  const first = fingerprints.get(key);
  if (first === undefined) {
    fingerprints.set(key, operation.fingerprint);
    return answer;
  }
  if (first !== operation.fingerprint) return { kind: 'conflict' };
  return answer.kind === 'new' ? { kind: 'duplicate', status: 'pending', resultText: undefined } : answer;
}
