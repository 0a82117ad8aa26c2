import { DelayedError } from 'bullmq';
import { currentOperation, type IdempotentJobsOptions, TransientError } from 'nestjs-idempotent-jobs';
import { IdempotencyService } from 'nestjs-idempotent-jobs/calls';
import { OperationBusyError, UsageError } from 'nestjs-idempotent-jobs/errors';
import { beforeAll, describe, expect, it } from 'vitest';
import { useApps, useOneApp } from '../support/apps.js';
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
import { Gate, type Handler, processorOf, Scripts } from '../support/processors.js';
import { BACKENDS, dataSourceOf } from '../support/scenario.js';

const QUICK = { attempts: 3, backoff: { baseMs: 10, capMs: 20 } };
const reserve = (): Promise<unknown> =>
  currentOperation().transaction.query(`INSERT INTO reservations VALUES (current_setting('app.tenant_id'))`);

const RESERVATIONS = 'CREATE TABLE reservations (tenant text)';

describe.each(BACKENDS)('a transactional effect, on %s', (backend) => {
  const apps = useApps();
  const inventory = (handler: Handler, timeoutMs = 60_000, queue = 'inventory') =>
    processorOf(queue, { effect: 'transactional', retry: QUICK, timeoutMs }, handler);
  const start = async (handler: Handler, timeoutMs = 60_000, jobs: IdempotentJobsOptions = {}) => {
    const { app } = await apps.fresh(backend, {
      jobs,
      queues: ['inventory'],
      providers: [inventory(handler, timeoutMs)],
    });
    await dataSourceOf(app).query(RESERVATIONS);
    return app;
  };

  // One application for all cases that do not keep its connections from it. Each has a tenant of its own.
  const scripts = new Scripts();
  const shared = useOneApp(backend, {
    queues: ['inventory', 'hasty', 'patient', 'charges', 'mails', 'unattended'],
    providers: [
      inventory(scripts.handler),
      inventory(scripts.handler, 300, 'hasty'),
      inventory(scripts.handler, 2 ** 31 - 1, 'patient'),
      processorOf('charges', { effect: 'keyed', retry: QUICK }, scripts.handler),
      processorOf('mails', { effect: 'natural' }, scripts.handler),
    ],
  });
  beforeAll(async () => {
    await dataSourceOf(shared()).query(RESERVATIONS);
  });

  /** Has a new tenant's operation be handled so, and tells what became of it. */
  const reserving = async (handler: Handler, queue = 'inventory') => {
    const tenantId = scripts.tenantWith(handler);
    await enqueue(shared(), queue, 'reserve', {}, 'reserve:1', tenantId);
    const outcome = await settled(shared(), 'reserve:1', tenantId);
    return { tenantId, outcome };
  };
  const reservations = (tenantId = 'acme', app = shared()): Promise<unknown> =>
    dataSourceOf(app).query('SELECT tenant FROM reservations WHERE tenant = $1', [tenantId]);

  it('writes and outcome commit together, under the tenant that row-level security sees', async () => {
    const { tenantId, outcome } = await reserving(reserve);
    expect(outcome).toMatchObject({ status: 'completed', attempts: 1 });
    expect(await reservations(tenantId)).toEqual([{ tenant: tenantId }]);
  });

  it('a failed attempt takes its writes back and counts; the next one commits', async () => {
    const { tenantId, outcome } = await reserving(async (_job, operation) => {
      await reserve();
      if (operation.attempt < 3) throw new TransientError('no stock yet');
    });
    expect(outcome).toMatchObject({ status: 'completed', attempts: 3, failures: 2 });
    expect(await reservations(tenantId)).toEqual([{ tenant: tenantId }]);
    expect(await attemptKindsOf(shared(), 'reserve:1', tenantId)).toEqual(['transient', 'transient']);
  });

  it('a handler that swallows an SQL error cannot commit half of its work', async () => {
    const { tenantId, outcome } = await reserving(async (_job, operation) => {
      await reserve();
      await operation.transaction.query('SELECT 1/0').catch(() => undefined);
    });
    expect(outcome).toMatchObject({ status: 'dead' });
    expect(await reservations(tenantId)).toEqual([]);
  });

  it('a deferred constraint that fails at COMMIT is a failed attempt, not a lost one', async () => {
    await dataSourceOf(shared()).query(
      'CREATE TABLE parents (id int PRIMARY KEY); CREATE TABLE children (parent int REFERENCES parents DEFERRABLE INITIALLY DEFERRED)',
    );
    const { tenantId, outcome } = await reserving(async (_job, operation) => {
      await operation.transaction.query('INSERT INTO children VALUES (42)');
    });
    expect(outcome).toMatchObject({ status: 'dead', attempts: 1 });
    expect(await lettersOf(shared(), tenantId)).toMatchObject([{ reason: 'permanent_error' }]);
  });

  it('an attempt that outlives its timeout loses its connection: nothing it writes later is kept', async () => {
    const ends: string[] = [];
    const { tenantId, outcome } = await reserving(async (_job, operation) => {
      if (operation.attempt > 1) return reserve();
      await reserve();
      await new Promise((resolve) => operation.signal.addEventListener('abort', resolve));
      await reserve().then(
        () => ends.push('wrote'),
        () => ends.push('refused'),
      );
      return undefined;
    }, 'hasty');
    expect(outcome).toMatchObject({ status: 'completed', attempts: 2 });
    await eventually(
      () => ends,
      (seen) => expect(seen).toEqual(['refused']),
    );
    expect(await reservations(tenantId)).toEqual([{ tenant: tenantId }]);
  });

  it('a handler that rolls the transaction back itself fails with an explanation', async () => {
    const { tenantId } = await reserving((_job, operation) => operation.transaction.query('ROLLBACK'));
    await eventually(
      () => lettersOf(shared(), tenantId),
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
      const { tenantId, outcome } = await reserving(async (_job, { transaction }) => {
        calls += 1;
        await reserve();
        await transaction.query('COMMIT');
        return end();
      });
      expect(outcome).toMatchObject({ status: 'dead' });
      expect(await lettersOf(shared(), tenantId)).toMatchObject([
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
      60_000,
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
    expect(await reservations('acme', app)).toEqual([{ tenant: 'acme' }]);
  });

  it('may take as long as a timer can count', async () => {
    const { outcome } = await reserving(reserve, 'patient');
    expect(outcome).toMatchObject({ status: 'completed', attempts: 1 });
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
    const tenantId = scripts.tenantWith(async (_job, { transaction }) => {
      await transaction.query(`SELECT set_config('app.tenant_id', 'leaked', false)`);
    });
    for (const key of ['reserve:1', 'reserve:2', 'reserve:3'])
      await enqueue(shared(), 'inventory', 'reserve', {}, key, tenantId);
    for (const key of ['reserve:1', 'reserve:2', 'reserve:3'])
      expect(await settled(shared(), key, tenantId)).toMatchObject({ status: 'completed' });
    const seen = await Promise.all(
      Array.from({ length: 10 }, () =>
        dataSourceOf(shared()).query<{ tenant: string | null }[]>(
          `SELECT current_setting('app.tenant_id', true) AS tenant, pg_sleep(0.05)`,
        ),
      ),
    );
    expect(seen.flat().filter(({ tenant }) => tenant === 'leaked')).toEqual([]);
  });

  it('a policy over uuid tenants holds on a connection that has carried a tenant, as the documentation writes it', async () => {
    const source = dataSourceOf(shared());
    await source.query('CREATE TABLE stock (tenant_id uuid)');
    await reserving(() => 'done');
    const look = `SELECT count(*)::integer AS rows FROM stock
      WHERE tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid`;
    const looks = await Promise.all(Array.from({ length: 10 }, () => source.query(look)));
    expect(looks).toEqual(Array.from({ length: 10 }, () => [{ rows: 0 }]));
  });

  it.each(['transactional', 'keyed'] as const)(
    '%s: a follow-up exists if and only if the attempt completed',
    async (effect) => {
      const tenantId = scripts.tenantWith((job, operation) => {
        if (operation.operationKey !== 'order:1') return job.data;
        operation.enqueue(
          idempotentQueue(shared(), 'charges'),
          'charge',
          { from: operation.attempt },
          { operationKey: `charge:${operation.attempt}` },
        );
        if (operation.attempt === 1) throw new TransientError('not yet');
        return undefined;
      });
      const queue = { transactional: 'inventory', keyed: 'charges' }[effect];
      await enqueue(shared(), queue, 'order', {}, 'order:1', tenantId);
      expect(await settled(shared(), 'charge:2', tenantId)).toMatchObject({
        status: 'completed',
        result: { from: 2 },
      });
      expect(await outcomeOf(shared(), 'charge:1', tenantId)).toBeUndefined();
    },
  );

  it('a follow-up whose key belongs to another request does not undo the outcome; it is buried', async () => {
    const tenantId = scripts.tenantWith((_job, operation) => {
      operation.enqueue(
        idempotentQueue(shared(), 'unattended'),
        'charge',
        { amount: 2 },
        { operationKey: 'charge:taken' },
      );
    });
    await enqueue(shared(), 'unattended', 'charge', { amount: 1 }, 'charge:taken', tenantId);
    await enqueue(shared(), 'charges', 'order', {}, 'order:1', tenantId);
    expect(await settled(shared(), 'order:1', tenantId)).toMatchObject({ status: 'completed' });
    expect(await lettersOf(shared(), tenantId)).toMatchObject([
      { reason: 'idempotency_conflict', operation_key: 'charge:taken', payload: { amount: 2 } },
    ]);
  });

  it('handlers that outnumber the connections of the pool wait for their turn, and leave some for everybody else', async () => {
    let open = 0;
    let most = 0;
    const tenantId = scripts.tenantWith(async (_job, operation) => {
      open += 1;
      most = Math.max(most, open);
      await operation.transaction.query('SELECT pg_sleep(0.05)');
      // A second connection, as repositories outside of the transaction take one.
      await dataSourceOf(shared()).query('SELECT 1');
      open -= 1;
    });
    const requests = Array.from({ length: 60 }, (_, index) => ({
      name: 'reserve',
      payload: {},
      operationKey: `reserve:${index}`,
      tenantId,
    }));
    await idempotentQueue(shared(), 'inventory').enqueueMany(requests);
    await Promise.all(requests.map(({ operationKey }) => settled(shared(), operationKey, tenantId)));
    expect(most).toBeLessThanOrEqual(6);
    expect(await lettersOf(shared(), tenantId)).toEqual([]);
  });

  it('the transaction is offered to transactional effects only', async () => {
    const problems: unknown[] = [];
    await reserving((_job, operation) => {
      try {
        void operation.transaction;
      } catch (error) {
        problems.push(error);
      }
    }, 'mails');
    expect(problems).toEqual([expect.any(UsageError)]);
    await eventually(
      () => bullQueue(shared(), 'mails').getJobCounts('completed'),
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
    // The dispatcher would wait for that row for 10 s.
    expect(await settled(app, 'charge:late', 'acme', 9000)).toMatchObject({ status: 'completed' });
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
