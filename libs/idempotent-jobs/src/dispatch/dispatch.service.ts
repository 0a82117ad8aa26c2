import { Injectable, Optional } from '@nestjs/common';
import { ANNOUNCE, dispatchChannel } from '../producer/operation.store.js';
import { Due } from '../producer/due.js';
import { QueueRegistry } from '../producer/queue-registry.js';
import { UsageError } from '../operation/errors.js';
import { Database } from '../ledger/postgres/database.js';
import { lookedUpByKey, rowsOf, statement } from '../ledger/postgres/statement.js';
import { TenantContext } from '../tenancy/tenant-context.js';

/** Which operations to put on their queues again. */
export interface RedispatchUnsettledOptions {
  /** Only operations of this queue. Default: of all queues. */
  readonly queue?: string;
  /** Only operations that were requested at least so long ago, in ms. Default 0: all. */
  readonly olderThanMs?: number;
  /** Only count them. Default false. */
  readonly dryRun?: boolean;
}

/** What {@link DispatchService.redispatchUnsettled} found. */
export interface RedispatchReport {
  /** Operations that are now due for their queues; with `dryRun`, those that would be. */
  readonly operations: number;
  /**
   * Unsettled operations whose payload is not in the ledger: they were put straight on BullMQ (durability `queue`, or
   * another producer's job) and claimed there. Only their producer can put them again.
   */
  readonly withoutPayload: number;
}

/** Whether a queue was ever registered or used. */
const KNOWS_QUEUE = statement(
  'knows_queue',
  `
SELECT EXISTS (SELECT FROM {schema}.job_queues WHERE queue = :queue)
    OR EXISTS (SELECT FROM {schema}.job_outcomes WHERE queue = :queue) AS is_known
`,
);

/** Few enough for statements that take milliseconds and lock little, many enough to make round trips negligible. */
const PAGE_SIZE = 1000;

/** The database's own time: no instance's clock decides what was requested before. */
const NOW = statement('redispatch_now', 'SELECT EXTRACT(EPOCH FROM clock_timestamp())::text AS now');

/**
 * Reads the next page of operations in the order of their keys, for those that wait for their queue to deliver them. One
 * row: the operations with a payload, how many have none, and where the next page begins. Its last tenant and key are null
 * when there are no more operations.
 *
 * A page is a number of rows read, not found: however few operations of a large ledger are unsettled, no statement takes
 * long. It walks the unique index; keys never change, so no concurrent change makes it skip a row or see it twice.
 */
const UNSETTLED = statement('unsettled', unsettled(''));

/** Like {@link UNSETTLED}, for one tenant. It has one more parameter, the tenant. */
const UNSETTLED_OF_TENANT = statement('unsettled_of_tenant', unsettled('AND tenant_id = :tenantId::text'));

/** `only` is a condition that the rows must also meet. */
function unsettled<const Only extends string>(only: Only) {
  return `
WITH page AS MATERIALIZED (
  SELECT tenant_id, operation_key, payload IS NOT NULL AS has_payload,
    (status IN ('pending', 'retrying') OR COALESCE(lease_expires_at <= clock_timestamp(), reconcile_due_at IS NOT NULL))
    AND origin = 'job'
    AND (:queue::text IS NULL OR queue = :queue)
    AND EXTRACT(EPOCH FROM created_at) <= :now::numeric - :olderThanMs::numeric / 1000 AS is_meant
  FROM {schema}.job_outcomes
  WHERE (tenant_id, operation_key) > (:afterTenantId::text, :afterKey::text) ${only}
  ORDER BY tenant_id, operation_key
  LIMIT ${PAGE_SIZE}
), last AS (
  SELECT tenant_id, operation_key FROM page ORDER BY tenant_id DESC, operation_key DESC LIMIT 1
)
SELECT
  COALESCE(json_agg(tenant_id) FILTER (WHERE is_meant AND has_payload), '[]') AS tenants,
  COALESCE(json_agg(operation_key) FILTER (WHERE is_meant AND has_payload), '[]') AS keys,
  count(*) FILTER (WHERE is_meant AND NOT has_payload)::integer AS without_payload,
  (SELECT tenant_id FROM last) AS last_tenant,
  (SELECT operation_key FROM last) AS last_key
FROM page
` as const;
}

/**
 * Makes operations due for their queue, unless they were settled or claimed meanwhile. One row per operation made due.
 *
 * `dispatches` goes back to 1 and not to 0: the times between further puts start anew, and a finished job that BullMQ may
 * still hold is revived. SKIP LOCKED: a transaction that holds a row is claiming, recording or putting the operation.
 */
const MAKE_DUE = statement(
  'make_due',
  `
WITH unsettled AS (
  SELECT seen.*
  FROM ${rowsOf('seen', 'tenantId text', 'operationKey text')}
  CROSS JOIN LATERAL (
    SELECT FROM {schema}.job_outcomes o
    WHERE o.tenant_id = seen.tenant_id AND o.operation_key = seen.operation_key AND o.payload IS NOT NULL
      AND (o.status IN ('pending', 'retrying') OR COALESCE(o.lease_expires_at <= clock_timestamp(), o.reconcile_due_at IS NOT NULL))
    LIMIT 1
    FOR UPDATE SKIP LOCKED
  ) o
)
UPDATE {schema}.job_outcomes o
SET dispatch_due_at = LEAST(o.dispatch_due_at, clock_timestamp()),
    dispatches = LEAST(o.dispatches, 1)
FROM unsettled u
WHERE o.tenant_id = u.tenant_id AND o.operation_key = u.operation_key AND ${lookedUpByKey('u.operation_key')}
RETURNING true AS is_due
`,
);

interface UnsettledPage {
  readonly tenants: readonly string[];
  readonly keys: readonly string[];
  readonly without_payload: number;
  readonly last_tenant: string | null;
  readonly last_key: string | null;
}

/** Brings operations back to queues that have lost them, without waiting for `dispatch.redispatchAfterMs`. */
@Injectable()
export class DispatchService {
  /** @internal Injected. Programs that have nothing but a database make it of that alone. */
  constructor(
    private readonly database: Database,
    @Optional() private readonly due?: Due,
    @Optional() private readonly queues?: QueueRegistry,
    @Optional() private readonly tenants?: TenantContext,
  ) {}

  /**
   * Makes unsettled operations due for their queues now: those that are pending, retrying, in doubt and asked about, or
   * running under an expired lease. Meant for the hour after a queue was lost. It is harmless at any other time, because
   * BullMQ ignores jobs that it still has, and a completed operation is answered with its result. Delayed operations keep
   * their delay; all keep their priority and deadline. An operation that another transaction is claiming or recording at
   * this moment is skipped.
   *
   * If it fails halfway, call it again. Inside of a tenant's frame, it covers that tenant's operations only.
   *
   * @throws UsageError for a queue that was never registered or used, or an age that is no number; nothing is changed
   */
  async redispatchUnsettled(options: RedispatchUnsettledOptions = {}): Promise<RedispatchReport> {
    const { queue, olderThanMs = 0, dryRun = false } = options;
    if (typeof olderThanMs !== 'number' || !Number.isFinite(olderThanMs) || olderThanMs < 0)
      throw new UsageError(
        `redispatchUnsettled(): olderThanMs must be a number of milliseconds, 0 or more, but is ${String(olderThanMs)}.`,
      );
    if (typeof dryRun !== 'boolean')
      throw new UsageError(`redispatchUnsettled(): dryRun must be true or false, but is ${String(dryRun)}.`);
    if (queue !== undefined) await this.#assertKnown(queue);

    let operations = 0;
    let withoutPayload = 0;
    for await (const page of this.#pages(queue, olderThanMs)) {
      withoutPayload += page.without_payload;
      operations += dryRun ? page.keys.length : await this.#makeDue(page);
    }
    return { operations, withoutPayload };
  }

  /** Each page is a statement by itself: behind a pooler, no connection is the same as the one before. */
  async *#pages(queue: string | undefined, olderThanMs: number): AsyncGenerator<UnsettledPage> {
    const tenantId = this.tenants?.current;
    const [{ now }] = (await this.database.run<{ now: string }>(NOW.with({}))) as [{ now: string }];
    let after: readonly [string, string] = [tenantId ?? '', ''];
    for (;;) {
      const input = { afterTenantId: after[0], afterKey: after[1], queue, now, olderThanMs };
      const call =
        tenantId === undefined ? UNSETTLED.with(input) : UNSETTLED_OF_TENANT.with({ ...input, tenantId });
      const [page] = (await this.database.run<UnsettledPage>(call)) as [UnsettledPage];
      if (page.last_tenant === null || page.last_key === null) return;
      yield page;
      after = [page.last_tenant, page.last_key];
    }
  }

  async #makeDue({ tenants, keys }: UnsettledPage): Promise<number> {
    if (keys.length === 0) return 0;
    const due = await this.database.run(MAKE_DUE.with({ tenantId: tenants, operationKey: keys }));
    if (due.length === 0) return 0;
    // The dispatchers start with this page while the next one is read.
    await this.database.run(ANNOUNCE.with({ channel: dispatchChannel(this.database.schema), queue: '' }));
    this.due?.wake();
    return due.length;
  }

  async #assertKnown(queue: string): Promise<void> {
    if (typeof queue !== 'string' || queue === '')
      throw new UsageError(
        `redispatchUnsettled(): queue must be the name of a queue, but is ${JSON.stringify(queue)}.`,
      );
    if (this.queues?.names.includes(queue) === true) return;
    const [answer] = await this.database.run<{ is_known: boolean }>(KNOWS_QUEUE.with({ queue }));
    if (answer?.is_known !== true)
      throw new UsageError(
        `redispatchUnsettled(): no application has registered a queue "${queue}", and the ledger has no operation of it. Check the name.`,
      );
  }
}
