import { randomUUID } from 'node:crypto';
import type { JobType } from 'bullmq';
import { Client, Pool } from 'pg';
import type { EnqueueTransaction, IdempotentJobsOptions } from 'nestjs-idempotent-jobs';
import { OperationConflictError, UsageError } from 'nestjs-idempotent-jobs/errors';
import { DataSource } from 'typeorm';
import { afterEach, describe, expect, it, inject, vi } from 'vitest';
import { useApps, useOneApp } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { bullQueue, idempotentQueue, outcomeOf, settled } from '../support/ledger.js';
import { processorOf } from '../support/processors.js';
import { BACKENDS, HAS_QUEUES_IN_POSTGRES, dataSourceOf, makePlace } from '../support/scenario.js';
import type { Place } from '../support/place.js';
import { singly } from '../support/start-app.js';

const echo = processorOf('charges', { effect: 'keyed' }, (job) => ({ echoed: job.data as unknown }));
const open: (() => Promise<unknown>)[] = [];

afterEach(async () => {
  await Promise.all(open.splice(0).map((close) => close()));
});

async function clientIn(databaseUrl: string): Promise<Client> {
  const client = new Client({ connectionString: databaseUrl });
  await client.connect();
  open.push(() => client.end());
  return client;
}

/** The ways to hand over a transaction: each begins one on the place's database and ends it as told. */
interface OpenTransaction {
  readonly handle: EnqueueTransaction;
  query(text: string): Promise<unknown>;
  end(how: 'COMMIT' | 'ROLLBACK'): Promise<void>;
}
type Begin = (source: DataSource, place: Place) => Promise<OpenTransaction>;

const beginRunner = async (source: DataSource) => {
  const runner = source.createQueryRunner();
  await runner.startTransaction();
  return {
    runner,
    query: (text: string) => runner.query(text),
    async end(how: 'COMMIT' | 'ROLLBACK') {
      await (how === 'COMMIT' ? runner.commitTransaction() : runner.rollbackTransaction());
      await runner.release();
    },
  };
};
const WAYS: [string, Begin][] = [
  [
    'an EntityManager',
    async (source) => {
      const { runner, ...rest } = await beginRunner(source);
      return { handle: runner.manager, ...rest };
    },
  ],
  [
    'a QueryRunner',
    async (source) => {
      const { runner, ...rest } = await beginRunner(source);
      return { handle: runner, ...rest };
    },
  ],
  [
    'a pg Client',
    async (_source, place) => {
      const client = await clientIn(place.databaseUrl);
      await client.query('BEGIN');
      return {
        handle: client,
        query: (text) => client.query(text),
        async end(how) {
          await client.query(how);
        },
      };
    },
  ],
  [
    'a client of a pg Pool',
    async (_source, place) => {
      const pool = new Pool({ connectionString: place.databaseUrl, max: 1 });
      const client = await pool.connect();
      open.push(() => pool.end());
      await client.query('BEGIN');
      return {
        handle: client,
        query: (text) => client.query(text),
        async end(how) {
          await client.query(how);
          client.release();
        },
      };
    },
  ],
];

/** The keys of a tenant that no other case has. */
const newTenant = () => {
  const tenantId = `tenant-${randomUUID()}`;
  return { tenantId, key: (operationKey: string) => ({ operationKey, tenantId }) };
};

describe.each(BACKENDS)('enqueueing in a transaction of the caller, on %s', (backend) => {
  // One application for all cases, each of which has a tenant of its own.
  let place: Place;
  const app = useOneApp(async () => (place = await makePlace(backend)), {
    queues: ['charges'],
    providers: [echo],
  });
  const start = () => {
    const { tenantId } = newTenant();
    const queue = idempotentQueue(app(), 'charges');
    const enqueue = (transaction: EnqueueTransaction, operationKey: string, payload: object = {}) =>
      queue.enqueue('charge', payload, { operationKey, tenantId, transaction });
    /** How many jobs of the tenant BullMQ has in those states. */
    const jobsIn = async (...states: JobType[]): Promise<number> => {
      const jobs = await bullQueue(app(), 'charges').getJobs(states);
      return jobs.filter(({ data }) => JSON.stringify(data).includes(tenantId)).length;
    };
    return { tenantId, queue, source: dataSourceOf(app()), enqueue, jobsIn };
  };

  describe.each(WAYS)('handed over as %s', (_way, begin) => {
    it('an operation runs once it commits, not before, and never if it rolls back', async () => {
      const { tenantId, source, enqueue, jobsIn } = start();
      const refused = await begin(source, place);
      await enqueue(refused.handle, 'charge:1');
      await refused.end('ROLLBACK');
      const kept = await begin(source, place);
      expect(await enqueue(kept.handle, 'charge:2', { amount: 5 })).toMatchObject({ duplicate: false });
      expect(await outcomeOf(app(), 'charge:2', tenantId)).toBeUndefined();
      expect(await jobsIn('waiting', 'active', 'delayed', 'completed')).toBe(0);
      await kept.end('COMMIT');
      expect(await settled(app(), 'charge:2', tenantId)).toMatchObject({
        status: 'completed',
        result: { echoed: { amount: 5 } },
      });
      expect(await outcomeOf(app(), 'charge:1', tenantId)).toBeUndefined();
      expect(await jobsIn('waiting', 'delayed')).toBe(0);
    });

    it('a conflict, also among many, leaves nothing of its own and all of the caller’s', async () => {
      const { tenantId, queue, source, enqueue } = start();
      const orders = `"orders of ${tenantId}"`;
      await source.query(`CREATE TABLE ${orders} (id text)`);
      const transaction = await begin(source, place);
      await enqueue(transaction.handle, 'charge:1', { amount: 1 });
      await transaction.query(`INSERT INTO ${orders} VALUES ('1')`);
      const conflicting = enqueue(transaction.handle, 'charge:1', { amount: 2 });
      await expect(conflicting).rejects.toThrow(OperationConflictError);
      const requests = [
        { name: 'charge', payload: {}, operationKey: 'charge:2', tenantId },
        { name: 'charge', payload: { amount: 2 }, operationKey: 'charge:1', tenantId },
      ];
      const many = queue.enqueueMany(requests, { transaction: transaction.handle });
      await expect(many).rejects.toThrow(OperationConflictError);
      await transaction.query(`INSERT INTO ${orders} VALUES ('2')`);
      await enqueue(transaction.handle, 'charge:3');
      await transaction.end('COMMIT');
      expect(await source.query(`SELECT id FROM ${orders} ORDER BY id`)).toEqual([{ id: '1' }, { id: '2' }]);
      expect(await settled(app(), 'charge:1', tenantId)).toMatchObject({
        result: { echoed: { amount: 1 } },
      });
      expect(await settled(app(), 'charge:3', tenantId)).toMatchObject({ status: 'completed' });
      expect(await outcomeOf(app(), 'charge:2', tenantId)).toBeUndefined();
    });
  });

  it('enqueues that run side by side in one transaction do not take each other’s rows along', async () => {
    const { tenantId, source, enqueue } = start();
    await source.transaction(async (manager) => {
      await enqueue(manager, 'charge:0', { amount: 0 });
      const answers = await Promise.allSettled([
        enqueue(manager, 'charge:1'),
        enqueue(manager, 'charge:0', { amount: 1 }),
        enqueue(manager, 'charge:2'),
      ]);
      expect(answers.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled']);
    });
    for (const key of ['charge:0', 'charge:1', 'charge:2'])
      expect(await settled(app(), key, tenantId)).toMatchObject({ status: 'completed' });
  });

  it('what is no open transaction of the ledger’s database is refused, and nothing is enqueued', async () => {
    const { tenantId, source, enqueue } = start();
    const runner = source.createQueryRunner();
    await runner.startTransaction();
    await runner.commitTransaction();
    const idle = await clientIn(place.databaseUrl);
    const failed = await clientIn(place.databaseUrl);
    await failed.query('BEGIN');
    await failed.query('SELECT 1/0').catch(() => undefined);
    const pool = new Pool({ connectionString: place.databaseUrl });
    open.push(() => pool.end());
    const elsewhere = await clientIn(inject('postgresUrl'));
    await elsewhere.query('BEGIN');
    const other = new DataSource({ type: 'postgres', url: inject('postgresUrl') });
    await other.initialize();
    open.push(() => other.destroy());
    const cases: [unknown, string][] = [
      [source.manager, 'not open'],
      [runner, 'not open'],
      [runner.manager, 'not open'],
      [idle, 'not open'],
      [failed, 'has failed'],
      [pool, 'Pool'],
      [source, 'no transaction'],
      [{}, 'no transaction'],
      ['BEGIN', 'no transaction'],
      [elsewhere, 'another database'],
    ];
    for (const [handle, message] of cases) {
      const enqueued = enqueue(handle as EnqueueTransaction, 'charge:1');
      await expect(enqueued).rejects.toThrow(UsageError);
      await expect(enqueued).rejects.toThrow(message);
    }
    await other.transaction(async (manager) => {
      await expect(enqueue(manager, 'charge:1')).rejects.toThrow('another database');
    });
    await runner.release();
    await expect(enqueue(runner, 'charge:1')).rejects.toThrow('not open');
    // Refused, but not harmed: the same connection may go on.
    await elsewhere.query('CREATE TEMP TABLE after_refusal (id text)');
    expect(await outcomeOf(app(), 'charge:1', tenantId)).toBeUndefined();
  });

  it('another DataSource of the same database may bring the transaction', async () => {
    const { tenantId, enqueue } = start();
    const other = new DataSource({ type: 'postgres', url: place.databaseUrl });
    await other.initialize();
    open.push(() => other.destroy());
    await other.transaction((manager) => enqueue(manager, 'charge:1'));
    expect(await settled(app(), 'charge:1', tenantId)).toMatchObject({ status: 'completed' });
  });
});

describe.runIf(HAS_QUEUES_IN_POSTGRES)('a queue in the database of the ledger', () => {
  const apps = useApps();
  const withoutDispatcher = { dispatch: { enabled: false } };
  const start = async (jobs: IdempotentJobsOptions, providers = [echo]) => {
    const { app, place } = await apps.fresh('postgres', { queues: [singly('charges')], providers, jobs });
    return { app, place, queue: idempotentQueue(app, 'charges'), source: dataSourceOf(app) };
  };
  const key = (operationKey: string) => ({ operationKey, tenantId: 'acme' });

  // One application for all cases without a dispatcher, each of which has a tenant of its own. Nobody works on the refunds.
  let place: Place;
  const shared = useOneApp(async () => (place = await makePlace('postgres')), {
    queues: ['charges', 'refunds'],
    providers: [echo],
    jobs: withoutDispatcher,
  });

  it.each(WAYS)(
    'gets the job in the transaction of the caller, handed over as %s: no dispatcher is needed',
    async (_way, begin) => {
      const { tenantId, key } = newTenant();
      const [queue, source] = [idempotentQueue(shared(), 'charges'), dataSourceOf(shared())];
      const refused = await begin(source, place);
      await queue.enqueue('charge', {}, { ...key('charge:1'), transaction: refused.handle });
      await refused.end('ROLLBACK');
      const kept = await begin(source, place);
      await queue.enqueue('charge', {}, { ...key('charge:2'), transaction: kept.handle });
      await queue.enqueue('charge', {}, { ...key('charge:2'), transaction: kept.handle });
      await kept.end('COMMIT');
      expect(await settled(shared(), 'charge:2', tenantId)).toMatchObject({
        status: 'completed',
        attempts: 1,
      });
      expect(await outcomeOf(shared(), 'charge:1', tenantId)).toBeUndefined();
    },
  );

  it('gets many jobs, each new one once', async () => {
    const { app, queue, source } = await start(withoutDispatcher);
    const requests = Array.from({ length: 1200 }, (_, index) => ({
      name: 'charge',
      payload: { index: index % 1100 },
      ...key(`charge:${index % 1100}`),
    }));
    await source.transaction(async (transaction) => {
      await queue.enqueueMany(requests.slice(0, 10), { transaction });
      const answers = await queue.enqueueMany(requests, { transaction });
      expect(answers.filter(({ duplicate }) => duplicate === false)).toHaveLength(1090);
    });
    await Promise.all(requests.map(({ operationKey }) => settled(app, operationKey)));
    await eventually(
      () => bullQueue(app, 'charges').getJobCounts(),
      (counts) => expect(counts).toMatchObject({ completed: 1100, waiting: 0, delayed: 0 }),
    );
  });

  it('keeps delay and priority, and is due again as if the dispatcher had put it there', async () => {
    const { tenantId, key } = newTenant();
    const [queue, source] = [idempotentQueue(shared(), 'refunds'), dataSourceOf(shared())];
    await source.transaction(async (transaction) => {
      await queue.enqueue('charge', {}, { ...key('charge:1'), transaction, delayMs: 60_000, priority: 7 });
      await queue.enqueue('charge', {}, { ...key('charge:2'), transaction, priority: 3 });
    });
    // No other case delays a refund, or hurries it.
    const [delayed] = await bullQueue(shared(), 'refunds').getDelayed();
    expect(delayed).toMatchObject({ delay: 60_000, priority: 7 });
    expect(await bullQueue(shared(), 'refunds').getPrioritized()).toMatchObject([{ priority: 3 }]);
    const rows = await source.query(
      `SELECT operation_key, dispatches, EXTRACT(EPOCH FROM dispatch_due_at - created_at)::float8 AS due_s
         FROM job_outcomes WHERE tenant_id = $1 ORDER BY operation_key`,
      [tenantId],
    );
    expect(rows).toEqual([
      { operation_key: 'charge:1', dispatches: 1, due_s: expect.closeTo(960, 0) },
      { operation_key: 'charge:2', dispatches: 1, due_s: expect.closeTo(900, 0) },
    ]);
  });

  it('is filled again from the ledger after it has lost the job', async () => {
    const { app, place, queue, source } = await start(
      {
        dispatch: { enabled: false, redispatchAfterMs: 300 },
      },
      [],
    );
    await source.transaction((transaction) =>
      queue.enqueue('charge', {}, { ...key('charge:1'), transaction }),
    );
    await bullQueue(app, 'charges').drain();
    expect(await bullQueue(app, 'charges').getJobCountByTypes('waiting')).toBe(0);
    const other = await apps.beside(place, {
      queues: ['charges'],
      providers: [echo],
      jobs: { dispatch: { redispatchAfterMs: 300, pollMs: 50 } },
    });
    expect(await settled(other, 'charge:1')).toMatchObject({ status: 'completed', attempts: 1 });
  });

  it('leaves the search_path of the transaction as it was', async () => {
    const { key } = newTenant();
    const queue = idempotentQueue(shared(), 'charges');
    const client = await clientIn(place.databaseUrl);
    const searchPath = async () => (await client.query('SHOW search_path')).rows[0] as unknown;
    for (const path of ['"$user", public', 'public', `''`]) {
      await client.query(`SET search_path TO ${path}`);
      const before = await searchPath();
      await client.query('BEGIN');
      await queue.enqueue('charge', {}, { ...key(`charge:${path}`), transaction: client });
      expect(await searchPath()).toEqual(before);
      await client.query('COMMIT');
      expect(await searchPath()).toEqual(before);
    }
  });

  it('that will not take the job leaves it to the dispatcher, and the transaction unharmed', async () => {
    const { app, queue, source, place } = await start({});
    await source.query(`CREATE ROLE "${place.prefix}" NOLOGIN`);
    await source.query(`GRANT USAGE, CREATE ON SCHEMA public TO "${place.prefix}"`);
    await source.query(`GRANT ALL ON ALL TABLES IN SCHEMA public TO "${place.prefix}"`);
    try {
      await source.transaction(async (transaction) => {
        await transaction.query(`SET LOCAL ROLE "${place.prefix}"`);
        await transaction.query('CREATE TABLE orders (id text)');
        await queue.enqueue('charge', {}, { ...key('charge:1'), transaction });
        await transaction.query(`INSERT INTO orders VALUES ('1')`);
      });
      expect(await settled(app, 'charge:1')).toMatchObject({ status: 'completed', attempts: 1 });
      expect(await source.query('SELECT id FROM orders')).toEqual([{ id: '1' }]);
    } finally {
      await source.query(`DROP OWNED BY "${place.prefix}"`);
      await source.query(`DROP ROLE "${place.prefix}"`);
    }
  });

  it('goes on getting jobs in the transaction when the ledger, not BullMQ, has refused one', async () => {
    const { tenantId, key } = newTenant();
    const [queue, source] = [idempotentQueue(shared(), 'refunds'), dataSourceOf(shared())];
    const [holder, waiter] = [await clientIn(place.databaseUrl), await clientIn(place.databaseUrl)];
    await holder.query('BEGIN');
    await queue.enqueue('charge', {}, { ...key('charge:1'), transaction: holder });
    await waiter.query('BEGIN');
    await waiter.query(`SET LOCAL lock_timeout = '200ms'`);
    const sent = vi.spyOn(waiter, 'query');
    await expect(
      queue.enqueue('charge', {}, { ...key('charge:1'), transaction: waiter }),
    ).rejects.toMatchObject({ code: '55P03' });
    const texts = sent.mock.calls.map(([query]) => (query as unknown as { text: string }).text);
    expect(texts.filter((text) => text.includes('job_outcomes'))).toHaveLength(1);
    await queue.enqueue('charge', {}, { ...key('charge:2'), transaction: waiter });
    await waiter.query('COMMIT');
    await holder.query('ROLLBACK');
    const rows = 'SELECT operation_key, dispatches FROM job_outcomes WHERE tenant_id = $1';
    expect(await source.query(rows, [tenantId])).toEqual([{ operation_key: 'charge:2', dispatches: 1 }]);
  });

  it('is joined by a connection that a pooler has led to another server meanwhile', async () => {
    const { key } = newTenant();
    const queue = idempotentQueue(shared(), 'refunds');
    const client = await clientIn(place.databaseUrl);
    let isLedElsewhere = true;
    const pooled = {
      query: (query: { text: string; values: unknown[] }) =>
        isLedElsewhere && query.text.includes('pg_postmaster_start_time')
          ? Promise.resolve({ rows: [{ name: '1@0' }], rowCount: 1 })
          : client.query(query),
    };
    await client.query('BEGIN');
    const enqueued = () => queue.enqueue('charge', {}, { ...key('charge:1'), transaction: pooled });
    await expect(enqueued()).rejects.toThrow(/another database than the ledger/);
    isLedElsewhere = false;
    expect(await enqueued()).toMatchObject({ duplicate: false });
    await client.query('COMMIT');
  });
});
