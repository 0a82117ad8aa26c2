import { DelayedError } from 'bullmq';
import {
  currentOperation,
  type IdempotentJobsOptions,
  type IdempotentQueue,
  TransientError,
} from 'nestjs-idempotent-jobs';
import { IdempotencyService } from 'nestjs-idempotent-jobs/calls';
import { OperationBusyError, UsageError } from 'nestjs-idempotent-jobs/errors';
import { describe, expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import {
  asTenant,
  attemptKindsOf,
  bullQueue,
  enqueue,
  idempotentQueue,
  lettersOf,
  outcomeOf,
  settled,
} from '../support/ledger.js';
import { Gate, processorOf } from '../support/processors.js';
import { BACKENDS, dataSourceOf } from '../support/scenario.js';

const QUICK = { attempts: 3, backoff: { baseMs: 10, capMs: 20 } };
const reserve = (): Promise<unknown> =>
  currentOperation().transaction.query(`INSERT INTO reservations VALUES (current_setting('app.tenant_id'))`);

describe.each(BACKENDS)('a transactional effect, on %s', (backend) => {
  const apps = useApps();
  const start = async (
    handler: Parameters<typeof processorOf>[2],
    timeoutMs = 5000,
    jobs: IdempotentJobsOptions = {},
  ) => {
    const { app } = await apps.fresh(backend, {
      jobs,
      queues: ['inventory', 'charges'],
      providers: [processorOf('inventory', { effect: 'transactional', retry: QUICK, timeoutMs }, handler)],
    });
    await dataSourceOf(app).query('CREATE TABLE reservations (tenant text)');
    return app;
  };
  const reservations = (app: Parameters<typeof dataSourceOf>[0]): Promise<unknown> =>
    dataSourceOf(app).query('SELECT tenant FROM reservations');

  it('writes and outcome commit together, under the tenant that row-level security sees', async () => {
    const app = await start(reserve);
    await enqueue(app, 'inventory', 'reserve', {}, 'reserve:1');
    expect(await settled(app, 'reserve:1')).toMatchObject({ status: 'completed', attempts: 1 });
    expect(await reservations(app)).toEqual([{ tenant: 'acme' }]);
  });

  it('a failed attempt takes its writes back and counts; the next one commits', async () => {
    const app = await start(async (_job, operation) => {
      await reserve();
      if (operation.attempt < 3) throw new TransientError('no stock yet');
    });
    await enqueue(app, 'inventory', 'reserve', {}, 'reserve:1');
    expect(await settled(app, 'reserve:1')).toMatchObject({ status: 'completed', attempts: 3, failures: 2 });
    expect(await reservations(app)).toEqual([{ tenant: 'acme' }]);
    expect(await attemptKindsOf(app, 'reserve:1')).toEqual(['transient', 'transient']);
  });

  it('a handler that swallows an SQL error cannot commit half of its work', async () => {
    const app = await start(async (_job, operation) => {
      await reserve();
      await operation.transaction.query('SELECT 1/0').catch(() => undefined);
    });
    await enqueue(app, 'inventory', 'reserve', {}, 'reserve:1');
    expect(await settled(app, 'reserve:1')).toMatchObject({ status: 'dead' });
    expect(await reservations(app)).toEqual([]);
  });

  it('a deferred constraint that fails at COMMIT is a failed attempt, not a lost one', async () => {
    const app = await start(async (_job, operation) => {
      await operation.transaction.query('INSERT INTO children VALUES (42)');
    });
    await dataSourceOf(app).query(
      'CREATE TABLE parents (id int PRIMARY KEY); CREATE TABLE children (parent int REFERENCES parents DEFERRABLE INITIALLY DEFERRED)',
    );
    await enqueue(app, 'inventory', 'reserve', {}, 'reserve:1');
    expect(await settled(app, 'reserve:1')).toMatchObject({ status: 'dead', attempts: 1 });
    expect(await lettersOf(app)).toMatchObject([{ reason: 'permanent_error' }]);
  });

  it('an attempt that outlives its timeout loses its connection: nothing it writes later is kept', async () => {
    const ends: string[] = [];
    const app = await start(async (_job, operation) => {
      if (operation.attempt > 1) return reserve();
      await reserve();
      await new Promise((resolve) => operation.signal.addEventListener('abort', resolve));
      await reserve().then(
        () => ends.push('wrote'),
        () => ends.push('refused'),
      );
      return undefined;
    }, 300);
    await enqueue(app, 'inventory', 'reserve', {}, 'reserve:1');
    expect(await settled(app, 'reserve:1')).toMatchObject({ status: 'completed', attempts: 2 });
    await eventually(
      () => ends,
      (seen) => expect(seen).toEqual(['refused']),
    );
    expect(await reservations(app)).toEqual([{ tenant: 'acme' }]);
  });

  it('a handler that rolls the transaction back itself fails with an explanation', async () => {
    const app = await start((_job, operation) => operation.transaction.query('ROLLBACK'));
    await enqueue(app, 'inventory', 'reserve', {}, 'reserve:1');
    await eventually(
      () => lettersOf(app),
      ([letter]) => expect(letter?.error?.message).toMatch(/neither commit nor roll back/),
    );
  });

  it.each([
    ['returns', () => 'done'],
    [
      'fails',
      () => {
        throw new TransientError('later');
      },
    ],
  ])(
    'a handler that commits the transaction itself and then %s is noticed, and not run again',
    async (_what, end) => {
      let calls = 0;
      const app = await start(async (_job, { transaction }) => {
        calls += 1;
        await reserve();
        await transaction.query('COMMIT');
        return end();
      });
      await enqueue(app, 'inventory', 'reserve', {}, 'reserve:1');
      expect(await settled(app, 'reserve:1')).toMatchObject({ status: 'dead' });
      expect(await lettersOf(app)).toMatchObject([
        {
          reason: 'permanent_error',
          error: { message: expect.stringMatching(/neither commit nor roll back/) },
        },
      ]);
      expect(calls).toBe(1);
    },
  );

  it('a handler that commits the transaction itself and then hands its job back is noticed, and not run again', async () => {
    let calls = 0;
    const app = await start(
      async (job, { transaction }) => {
        calls += 1;
        await reserve();
        await transaction.query('COMMIT');
        await job.moveToDelayed(Date.now() + 50, job.token);
        throw new DelayedError();
      },
      5000,
      { leaseMs: 1500 },
    );
    await enqueue(app, 'inventory', 'reserve', {}, 'reserve:1');
    expect(await settled(app, 'reserve:1')).toMatchObject({ status: 'dead' });
    expect(await lettersOf(app)).toMatchObject([
      {
        reason: 'permanent_error',
        error: { message: expect.stringMatching(/neither commit nor roll back/) },
      },
    ]);
    expect(calls).toBe(1);
    expect(await reservations(app)).toEqual([{ tenant: 'acme' }]);
  });

  it('may take as long as a timer can count', async () => {
    const app = await start(reserve, 2 ** 31 - 1);
    await enqueue(app, 'inventory', 'reserve', {}, 'reserve:1');
    expect(await settled(app, 'reserve:1')).toMatchObject({ status: 'completed', attempts: 1 });
  });

  it('a guarded call waits no longer than it says for a connection that handlers have', async () => {
    const gate = new Gate();
    const app = await start(() => gate.pass(), 60_000);
    for (let job = 0; job < 6; job += 1) await enqueue(app, 'inventory', 'reserve', {}, `reserve:${job}`);
    await eventually(
      () =>
        dataSourceOf(app).query(`SELECT FROM pg_stat_activity WHERE state = 'idle in transaction'
        AND datname = current_database() AND query LIKE '%idempotent_jobs_attempt%'`),
      (held: unknown[]) => expect(held).toHaveLength(6),
    );
    const call = asTenant(app, 'globex', () =>
      app.get(IdempotencyService).once('k', () => 1, { effect: 'transactional', waitMs: 500 }),
    );
    await expect(call).rejects.toThrow(OperationBusyError);
    gate.open();
    for (let job = 0; job < 6; job += 1)
      expect(await settled(app, `reserve:${job}`)).toMatchObject({ status: 'completed' });
  });

  it('a tenant that a handler sets for the session goes no further than its transaction', async () => {
    const app = await start(async (_job, { transaction }) => {
      await transaction.query(`SELECT set_config('app.tenant_id', 'leaked', false)`);
    });
    for (const key of ['reserve:1', 'reserve:2', 'reserve:3'])
      await enqueue(app, 'inventory', 'reserve', {}, key);
    for (const key of ['reserve:1', 'reserve:2', 'reserve:3'])
      expect(await settled(app, key)).toMatchObject({ status: 'completed' });
    const seen = await Promise.all(
      Array.from({ length: 10 }, () =>
        dataSourceOf(app).query<{ tenant: string | null }[]>(
          `SELECT current_setting('app.tenant_id', true) AS tenant, pg_sleep(0.05)`,
        ),
      ),
    );
    expect(seen.flat().filter(({ tenant }) => tenant === 'leaked')).toEqual([]);
  });

  it('a policy over uuid tenants holds on a connection that has carried a tenant, as the documentation writes it', async () => {
    const app = await start(() => 'done');
    const source = dataSourceOf(app);
    await source.query('CREATE TABLE stock (tenant_id uuid)');
    await enqueue(app, 'inventory', 'reserve', {}, 'reserve:1');
    await settled(app, 'reserve:1');
    const look = `SELECT count(*)::integer AS rows FROM stock
      WHERE tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid`;
    const looks = await Promise.all(Array.from({ length: 10 }, () => source.query(look)));
    expect(looks).toEqual(Array.from({ length: 10 }, () => [{ rows: 0 }]));
  });

  it.each(['transactional', 'keyed'] as const)(
    '%s: a follow-up exists if and only if the attempt completed',
    async (effect) => {
      const tokens: { queue?: IdempotentQueue } = {};
      const follow = processorOf('orders', { effect, retry: QUICK }, (_job, operation) => {
        operation.enqueue(
          tokens.queue as IdempotentQueue,
          'charge',
          { from: operation.attempt },
          { operationKey: `charge:${operation.attempt}` },
        );
        if (operation.attempt === 1) throw new TransientError('not yet');
      });
      const charges = processorOf('charges', { effect: 'keyed' }, (job) => job.data as unknown);
      const { app } = await apps.fresh(backend, {
        queues: ['orders', 'charges'],
        providers: [follow, charges],
      });
      tokens.queue = idempotentQueue(app, 'charges');
      await enqueue(app, 'orders', 'order', {}, 'order:1');
      expect(await settled(app, 'charge:2')).toMatchObject({ status: 'completed', result: { from: 2 } });
      expect(await outcomeOf(app, 'charge:1')).toBeUndefined();
    },
  );

  it('a follow-up whose key belongs to another request does not undo the outcome; it is buried', async () => {
    const tokens: { queue?: IdempotentQueue } = {};
    const follow = processorOf('orders', { effect: 'keyed' }, (_job, operation) => {
      operation.enqueue(
        tokens.queue as IdempotentQueue,
        'charge',
        { amount: 2 },
        { operationKey: 'charge:taken' },
      );
    });
    const { app } = await apps.fresh(backend, { queues: ['orders', 'charges'], providers: [follow] });
    tokens.queue = idempotentQueue(app, 'charges');
    await enqueue(app, 'charges', 'charge', { amount: 1 }, 'charge:taken');
    await enqueue(app, 'orders', 'order', {}, 'order:1');
    expect(await settled(app, 'order:1')).toMatchObject({ status: 'completed' });
    expect(await lettersOf(app)).toMatchObject([
      { reason: 'idempotency_conflict', operation_key: 'charge:taken', payload: { amount: 2 } },
    ]);
  });

  it('handlers that outnumber the connections of the pool wait for their turn, and leave some for everybody else', async () => {
    let open = 0;
    let most = 0;
    const app = await start(async (_job, operation) => {
      open += 1;
      most = Math.max(most, open);
      await operation.transaction.query('SELECT pg_sleep(0.05)');
      // A second connection, as repositories outside of the transaction take one.
      await dataSourceOf(app).query('SELECT 1');
      open -= 1;
    });
    const requests = Array.from({ length: 60 }, (_, index) => ({
      name: 'reserve',
      payload: {},
      operationKey: `reserve:${index}`,
      tenantId: 'acme',
    }));
    await idempotentQueue(app, 'inventory').enqueueMany(requests);
    await Promise.all(requests.map(({ operationKey }) => settled(app, operationKey)));
    expect(most).toBeLessThanOrEqual(6);
    expect(await lettersOf(app)).toEqual([]);
  });

  it('the transaction is offered to transactional effects only', async () => {
    const problems: unknown[] = [];
    const processor = processorOf('charges', { effect: 'natural' }, (_job, operation) => {
      try {
        void operation.transaction;
      } catch (error) {
        problems.push(error);
      }
    });
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor] });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    await settled(app, 'charge:1');
    expect(problems).toEqual([expect.any(UsageError)]);
    await eventually(
      () => bullQueue(app, 'charges').getJobCounts('completed'),
      (counts) => expect(counts).toMatchObject({ completed: 1 }),
    );
  });

  it('a handler that holds its row does not hold up the others of its batch, nor its queue', async () => {
    const gate = new Gate();
    const processor = processorOf('charges', { effect: 'transactional' }, async (_job, operation) => {
      await operation.transaction.query('SELECT 1');
      if (operation.operationKey === 'charge:0') await gate.pass();
    });
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor] });
    const queue = bullQueue(app, 'charges');
    const addBulk = queue.addBulk.bind(queue);
    // The worker has the first job before the dispatcher hears that the batch was taken.
    queue.addBulk = async (jobs) => {
      const added = await addBulk(jobs);
      await gate.arrival;
      return added;
    };
    await idempotentQueue(app, 'charges').enqueueMany(
      Array.from({ length: 20 }, (_, index) => ({
        name: 'charge',
        payload: {},
        operationKey: `charge:${index}`,
        tenantId: 'acme',
      })),
    );
    await gate.arrival;
    await enqueue(app, 'charges', 'charge', {}, 'charge:late');
    expect(await settled(app, 'charge:late', 'acme', 5000)).toMatchObject({ status: 'completed' });
    await eventually(
      () =>
        dataSourceOf(app).query(
          `SELECT count(*)::integer AS rows FROM job_outcomes WHERE status = 'completed'`,
        ),
      (rows) => expect(rows).toEqual([{ rows: 20 }]),
    );
    gate.open();
    expect(await settled(app, 'charge:0')).toMatchObject({ status: 'completed', attempts: 1 });
  });
});
