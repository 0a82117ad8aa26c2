import { randomUUID } from 'node:crypto';
import { TenantContext } from 'nestjs-idempotent-jobs';
import {
  InvalidIdentityError,
  InvalidPayloadError,
  OperationConflictError,
  TenantMismatchError,
  TenantMissingError,
  UsageError,
} from 'nestjs-idempotent-jobs/errors';
import { describe, expect, it } from 'vitest';
import { useApps, useOneApp } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import {
  asTenant,
  bullQueue,
  enqueue,
  idempotentQueue,
  lettersOf,
  outcomeOf,
  settled,
} from '../support/ledger.js';
import { processorOf } from '../support/processors.js';
import { BACKENDS, dataSourceOf } from '../support/scenario.js';

/** Each case has tenants of its own. */
const newTenant = (): string => `tenant-${randomUUID()}`;

describe.each(BACKENDS)('enqueueing, on %s', (backend) => {
  const apps = useApps();
  const echo = processorOf('charges', { effect: 'keyed' }, (job) => ({ echoed: job.data as unknown }));
  // Nobody works on the refunds.
  const app = useOneApp(backend, { queues: ['charges', 'refunds'], providers: [echo] });

  it('an operation enqueued in a transaction that commits runs', async () => {
    const tenantId = newTenant();
    await dataSourceOf(app()).transaction(async (manager) => {
      await idempotentQueue(app(), 'charges').enqueue(
        'charge',
        { amount: 5 },
        { operationKey: 'charge:1', tenantId, transaction: manager },
      );
      expect(await outcomeOf(app(), 'charge:1', tenantId)).toBeUndefined();
    });
    expect(await settled(app(), 'charge:1', tenantId)).toMatchObject({
      status: 'completed',
      result: { echoed: { amount: 5 } },
    });
  });

  it('an operation enqueued in a transaction that rolls back does not exist', async () => {
    const tenantId = newTenant();
    const transaction = dataSourceOf(app()).transaction(async (manager) => {
      await idempotentQueue(app(), 'charges').enqueue(
        'charge',
        {},
        { operationKey: 'charge:1', tenantId, transaction: manager },
      );
      throw new Error('the order is refused');
    });
    await expect(transaction).rejects.toThrow('the order is refused');
    await enqueue(app(), 'charges', 'charge', {}, 'charge:2', tenantId);
    await settled(app(), 'charge:2', tenantId);
    expect(await outcomeOf(app(), 'charge:1', tenantId)).toBeUndefined();
  });

  it('an EntityManager without a transaction is refused', async () => {
    const tenantId = newTenant();
    const { manager } = dataSourceOf(app());
    const options = { operationKey: 'charge:1', tenantId, transaction: manager };
    await expect(idempotentQueue(app(), 'charges').enqueue('charge', {}, options)).rejects.toThrow(
      UsageError,
    );
    expect(await outcomeOf(app(), 'charge:1', tenantId)).toBeUndefined();
  });

  it('the same key and payload again is a duplicate, with the result once there is one', async () => {
    const tenantId = newTenant();
    expect(await enqueue(app(), 'charges', 'charge', { a: 1, b: 2 }, 'charge:1', tenantId)).toMatchObject({
      duplicate: false,
      status: 'pending',
    });
    await settled(app(), 'charge:1', tenantId);
    expect(await enqueue(app(), 'charges', 'charge', { b: 2, a: 1 }, 'charge:1', tenantId)).toMatchObject({
      duplicate: true,
      status: 'completed',
      result: { echoed: { a: 1, b: 2 } },
    });
    expect(await outcomeOf(app(), 'charge:1', tenantId)).toMatchObject({ attempts: 1 });
  });

  it('the same key with another payload or name is a conflict, and changes nothing', async () => {
    const tenantId = newTenant();
    await enqueue(app(), 'charges', 'charge', { amount: 1 }, 'charge:1', tenantId);
    await settled(app(), 'charge:1', tenantId);
    await expect(enqueue(app(), 'charges', 'charge', { amount: 2 }, 'charge:1', tenantId)).rejects.toThrow(
      OperationConflictError,
    );
    await expect(enqueue(app(), 'charges', 'refund', { amount: 1 }, 'charge:1', tenantId)).rejects.toThrow(
      OperationConflictError,
    );
    expect(await outcomeOf(app(), 'charge:1', tenantId)).toMatchObject({
      status: 'completed',
      result: { echoed: { amount: 1 } },
    });
    expect(await lettersOf(app(), tenantId)).toEqual([]);
  });

  it('the same key on another queue is a conflict, not a duplicate that never runs', async () => {
    const tenantId = newTenant();
    await enqueue(app(), 'refunds', 'work', {}, 'work:1', tenantId);
    await expect(enqueue(app(), 'charges', 'work', {}, 'work:1', tenantId)).rejects.toThrow(
      OperationConflictError,
    );
  });

  it('a Postgres connection that is lost in the middle of enqueueMany is an error, not the end of the process', async () => {
    const { app } = await apps.fresh(backend, { queues: ['charges'] });
    const requests = Array.from({ length: 5000 }, (_, index) => ({
      name: 'charge',
      payload: {},
      operationKey: `charge:${index}`,
      tenantId: 'acme',
    }));
    const refused = expect(idempotentQueue(app, 'charges').enqueueMany(requests)).rejects.toThrow();
    await eventually(
      () =>
        dataSourceOf(app).query(
          `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%accepted%' AND pid <> pg_backend_pid() AND state <> 'idle'`,
        ),
      (rows) => expect(rows).not.toEqual([]),
    );
    await refused;
    expect(await dataSourceOf(app).query('SELECT count(*)::integer AS rows FROM job_outcomes')).toEqual([
      { rows: 0 },
    ]);
  });

  it('ten enqueues of one key at once make one operation', async () => {
    const tenantId = newTenant();
    const answers = (await Promise.all(
      Array.from({ length: 10 }, () =>
        enqueue(app(), 'charges', 'charge', { amount: 1 }, 'charge:1', tenantId),
      ),
    )) as { duplicate: boolean }[];
    expect(answers.filter((answer) => !answer.duplicate)).toHaveLength(1);
    expect(await settled(app(), 'charge:1', tenantId)).toMatchObject({ attempts: 1 });
  });

  it('enqueueMany accepts all or, if one conflicts, none', async () => {
    const tenantId = newTenant();
    const queue = idempotentQueue(app(), 'charges');
    // More than one statement takes.
    const count = 1100;
    const requests = Array.from({ length: count }, (_, index) => ({
      name: 'charge',
      payload: { index },
      operationKey: `charge:${index}`,
      tenantId,
    }));
    const answers = await queue.enqueueMany(requests);
    expect(answers.filter((answer) => answer.duplicate === false)).toHaveLength(count);
    const conflicting = [
      { name: 'charge', payload: {}, operationKey: 'new:1', tenantId },
      { name: 'charge', payload: { other: true }, operationKey: 'charge:7', tenantId },
    ];
    await expect(queue.enqueueMany(conflicting)).rejects.toThrow(OperationConflictError);
    expect(await outcomeOf(app(), 'new:1', tenantId)).toBeUndefined();
    await dataSourceOf(app()).transaction(async (manager) => {
      await expect(queue.enqueueMany(conflicting, { transaction: manager })).rejects.toThrow(
        OperationConflictError,
      );
    });
    expect(await outcomeOf(app(), 'new:1', tenantId)).toBeUndefined();
    await eventually(
      () =>
        dataSourceOf(app()).query(
          `SELECT count(*)::integer AS done FROM job_outcomes
           WHERE tenant_id = $1 AND status = 'completed'`,
          [tenantId],
        ),
      (rows) => expect(rows).toEqual([{ done: count }]),
    );
  });

  it('the tenant comes from the surrounding frame; none, another, or a malformed one is refused', async () => {
    const tenantId = newTenant();
    const globex = newTenant();
    const queue = idempotentQueue(app(), 'charges');
    await asTenant(app(), globex, () => queue.enqueue('charge', {}, { operationKey: 'charge:1' }));
    expect(await settled(app(), 'charge:1', globex)).toMatchObject({ status: 'completed' });
    await expect(queue.enqueue('charge', {}, { operationKey: 'charge:2' })).rejects.toThrow(
      TenantMissingError,
    );
    await expect(
      asTenant(app(), globex, () => queue.enqueue('charge', {}, { operationKey: 'charge:2', tenantId })),
    ).rejects.toThrow(TenantMismatchError);
    for (const tenantId of ['', ' acme', 'a'.repeat(256), 'a\u0000b']) {
      await expect(queue.enqueue('charge', {}, { operationKey: 'charge:2', tenantId })).rejects.toThrow(
        InvalidIdentityError,
      );
    }
    for (const operationKey of ['', 'k'.repeat(401), 'a\nb']) {
      await expect(queue.enqueue('charge', {}, { operationKey, tenantId })).rejects.toThrow(
        InvalidIdentityError,
      );
    }
    expect(app().get(TenantContext).current).toBeUndefined();
  });

  it('a payload that cannot be carried is refused before anything is written', async () => {
    const tenantId = newTenant();
    const cyclic: Record<string, unknown> = {};
    cyclic['self'] = cyclic;
    for (const payload of [{ amount: 1n }, cyclic, { text: 'a\u0000b' }, { text: '\ud800' }]) {
      await expect(enqueue(app(), 'charges', 'charge', payload, 'charge:1', tenantId)).rejects.toThrow(
        InvalidPayloadError,
      );
    }
    expect(await outcomeOf(app(), 'charge:1', tenantId)).toBeUndefined();
  });

  it.each([
    [{ delayMs: 1e300 }, /delayMs must be .* to ten years .*, but is 1e\+300/],
    [{ delayMs: 315_360_000_001 }, /delayMs/],
    [{ delayMs: '5' }, /delayMs must be a number .*, but is the string "5"/],
    [{ deadline: '2030-01-01' }, /deadline must be a valid Date, but is the string "2030-01-01"/],
    [{ deadline: new Date(Number.NaN) }, /deadline must be a valid Date, but is Invalid Date/],
    [{ priority: '5' }, /priority .* is the string "5"/],
  ])('%j is refused before anything is written', async (options, message) => {
    const tenantId = newTenant();
    const asked = { operationKey: 'charge:1', tenantId, ...options } as never;
    const refused = idempotentQueue(app(), 'charges').enqueue('charge', {}, asked);
    await expect(refused).rejects.toThrow(UsageError);
    await expect(refused).rejects.toThrow(message);
    expect(await outcomeOf(app(), 'charge:1', tenantId)).toBeUndefined();
  });

  it('the longest delay and the farthest deadline are kept', async () => {
    const tenantId = newTenant();
    const options = { operationKey: 'charge:1', tenantId, delayMs: 315_360_000_000 };
    await idempotentQueue(app(), 'charges').enqueue('charge', {}, options);
    await eventually(
      async () => (await bullQueue(app(), 'charges').getDelayed()).map(({ data }) => JSON.stringify(data)),
      (delayed) => expect(delayed.filter((data) => data.includes(tenantId))).toHaveLength(1),
    );
  });

  it('hostile but valid payloads arrive as they were sent', async () => {
    const tenantId = newTenant();
    const payload = JSON.parse(
      '{"__proto__":{"admin":true},"quote":"\\"\'{},NULL\\\\","emoji":"💳","big":1e21,"deep":[[[{}]]],"literal":"\\\\u0000"}',
    ) as object;
    await enqueue(app(), 'charges', 'charge', payload, `it's "quoted", {braced} \\ NULL`, tenantId);
    const outcome = await settled(app(), `it's "quoted", {braced} \\ NULL`, tenantId);
    expect(outcome).toMatchObject({ status: 'completed' });
    expect(JSON.stringify((outcome.result as { echoed: unknown }).echoed)).toContain('"admin":true');
    await enqueue(app(), 'charges', 'charge', { text: 'x'.repeat(1_000_000) }, 'charge:large', tenantId);
    expect(await settled(app(), 'charge:large', tenantId)).toMatchObject({ status: 'completed' });
  });

  it('a delayed operation does not run before its time', async () => {
    const tenantId = newTenant();
    const enqueuedAt = Date.now();
    await idempotentQueue(app(), 'charges').enqueue(
      'charge',
      {},
      { operationKey: 'charge:1', tenantId, delayMs: 1200 },
    );
    const outcome = await settled(app(), 'charge:1', tenantId);
    expect((outcome.startedAt as Date).getTime() - enqueuedAt).toBeGreaterThanOrEqual(1150);
  });

  it('an operation whose deadline has passed is not run', async () => {
    const tenantId = newTenant();
    const deadline = new Date(Date.now() - 1000);
    await idempotentQueue(app(), 'charges').enqueue(
      'charge',
      {},
      { operationKey: 'charge:1', tenantId, deadline },
    );
    expect(await settled(app(), 'charge:1', tenantId)).toMatchObject({ status: 'dead' });
    expect(await lettersOf(app(), tenantId)).toMatchObject([{ reason: 'time_budget_exceeded' }]);
  });

  it('with durability "queue" the operation goes straight to BullMQ, and still runs once', async () => {
    const tenantId = newTenant();
    const queue = idempotentQueue(app(), 'charges');
    const options = { operationKey: 'charge:1', tenantId, durability: 'queue' } as const;
    expect(await queue.enqueue('charge', { a: 1 }, options)).toMatchObject({ duplicate: undefined });
    await queue.enqueue('charge', { a: 1 }, options);
    expect(await settled(app(), 'charge:1', tenantId)).toMatchObject({ status: 'completed', attempts: 1 });
    await dataSourceOf(app()).transaction(async (transaction) => {
      await expect(queue.enqueue('charge', {}, { ...options, transaction })).rejects.toThrow(UsageError);
    });
  });

  it('an operation that a dispatcher took and then died with is put on its queue by another', async () => {
    const { app, place } = await apps.fresh(backend, {
      queues: ['charges'],
      jobs: { dispatch: { enabled: false } },
    });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    expect(await outcomeOf(app, 'charge:1')).toMatchObject({ status: 'pending' });
    // As a dispatcher leaves it that was killed between taking and putting, with its hold almost over.
    await dataSourceOf(app).query(
      `UPDATE job_outcomes SET dispatch_due_at = clock_timestamp() + interval '300 ms'`,
    );
    await apps.beside(place, { queues: ['charges'], providers: [echo] });
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'completed', attempts: 1 });
  });
});
