import { BullModule, type WorkerHost } from '@nestjs/bullmq';
import { type INestApplicationContext, Injectable, type OnModuleInit } from '@nestjs/common';
import { describe, expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import {
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

const many = (count: number): { name: string; payload: object; operationKey: string; tenantId: string }[] =>
  Array.from({ length: count }, (_, index) => ({
    name: 'charge',
    payload: { index },
    operationKey: `charge:${index}`,
    tenantId: 'acme',
  }));

describe.each(BACKENDS)('start and stop, on %s', (backend) => {
  const apps = useApps();

  it('no job runs before the whole application is initialised', async () => {
    const order: string[] = [];
    @Injectable()
    class SlowStarter implements OnModuleInit {
      async onModuleInit(): Promise<void> {
        await new Promise((resolve) => setTimeout(resolve, 300));
        order.push('initialised');
      }
    }
    const { app: producer, place } = await apps.fresh(backend, { queues: ['charges'] });
    await enqueue(producer, 'charges', 'charge', {}, 'charge:1');
    await eventually(
      () => bullQueue(producer, 'charges').getWaitingCount(),
      (waiting) => expect(waiting).toBe(1),
    );
    const processor = processorOf('charges', { effect: 'natural' }, () => order.push('ran'));
    const app = await apps.beside(place, { queues: ['charges'], providers: [processor, SlowStarter] });
    await settled(app, 'charge:1');
    expect(order).toEqual(['initialised', 'ran']);
  });

  it('a shutdown under load lets running handlers finish, takes no more, and loses nothing', async () => {
    let running = 0;
    const runs = new Map<string, number>();
    const processor = processorOf(
      'charges',
      { effect: 'unrepeatable' },
      async (_job, operation) => {
        running += 1;
        runs.set(operation.operationKey, (runs.get(operation.operationKey) ?? 0) + 1);
        await new Promise((resolve) => setTimeout(resolve, 300));
        running -= 1;
      },
      { concurrency: 50 },
    );
    const options = { queues: ['charges'], providers: [processor] };
    const { app, place } = await apps.fresh(backend, options);
    await idempotentQueue(app, 'charges').enqueueMany(many(300));
    await eventually(
      () => running,
      (handlers) => expect(handlers).toBeGreaterThan(10),
    );
    await apps.close(app);
    expect(running).toBe(0);
    const heir = await apps.beside(place, options);
    await Promise.all(many(300).map(({ operationKey }) => settled(heir, operationKey)));
    expect([...runs.values()].filter((count) => count !== 1)).toEqual([]);
    expect(runs.size).toBe(300);
    expect(await lettersOf(heir)).toEqual([]);
  });

  it('handlers that do not finish in time are told, and only what must not be repeated ends in doubt', async () => {
    const gate = new Gate();
    const aborted: string[] = [];
    const hang = async (
      _job: unknown,
      operation: { operationKey: string; signal: AbortSignal },
    ): Promise<void> => {
      operation.signal.addEventListener('abort', () => aborted.push(operation.operationKey));
      await gate.pass();
    };
    const jobs = { shutdown: { drainMs: 200, closeMs: 3000 } };
    const queues = ['safe', 'unsafe'];
    const { app, place } = await apps.fresh(backend, {
      queues,
      jobs,
      providers: [processorOf('safe', { effect: 'keyed' }, hang), processorOf('unsafe', {}, hang)],
    });
    await enqueue(app, 'safe', 'work', {}, 'work:safe');
    await enqueue(app, 'unsafe', 'work', {}, 'work:unsafe');
    const isRunning = async (key: string): Promise<boolean> =>
      (await outcomeOf(app, key))?.status === 'running';
    await eventually(
      () => Promise.all(['work:safe', 'work:unsafe'].map(isRunning)),
      (running) => expect(running).toEqual([true, true]),
    );
    await apps.close(app);
    expect(aborted.toSorted()).toEqual(['work:safe', 'work:unsafe']);
    gate.open();

    const done = (): string => 'done';
    const heir = await apps.beside(place, {
      queues,
      providers: [processorOf('safe', { effect: 'keyed' }, done), processorOf('unsafe', {}, done)],
    });
    // The shutdown burned no attempt of what can be repeated.
    expect(await settled(heir, 'work:safe')).toMatchObject({ status: 'completed', attempts: 1, failures: 0 });
    expect(await settled(heir, 'work:unsafe')).toMatchObject({ status: 'in_doubt', attempts: 1 });
    expect(await attemptKindsOf(heir, 'work:unsafe')).toEqual(['in_doubt']);
  });

  it('a job that its worker cancels is told so by the signal of its attempt, and counts as in doubt', async () => {
    const gate = new Gate();
    const reasons: unknown[] = [];
    const processor = processorOf('charges', { effect: 'unrepeatable' }, async (job, operation) => {
      operation.signal.addEventListener('abort', () => reasons.push(operation.signal.reason));
      if (job.name === 'charge') await gate.pass();
    });
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor] });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    await gate.arrival;
    const { worker } = app.get<WorkerHost>(processor);
    expect(worker.cancelJob('another')).toBe(false);
    expect(worker.cancelJob((await outcomeOf(app, 'charge:1'))?.jobId ?? '')).toBe(true);
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'in_doubt' });
    expect(reasons).toMatchObject([{ message: expect.stringMatching(/its job was cancelled/) }]);
    gate.open();
    await enqueue(app, 'charges', 'other', {}, 'charge:2');
    expect(await settled(app, 'charge:2')).toMatchObject({ status: 'completed' });
    expect(reasons).toHaveLength(1);
  });

  it('queues and DataSource are still there for handlers that finish during the shutdown', async () => {
    const apps_: { current?: INestApplicationContext } = {};
    const gate = new Gate();
    const processor = processorOf('charges', { effect: 'natural' }, async () => {
      await gate.pass();
      const current = apps_.current as INestApplicationContext;
      await dataSourceOf(current).query('SELECT 1');
      await bullQueue(current, 'other').add('follow-up', {});
      return 'both open';
    });
    const { app, place } = await apps.fresh(backend, {
      queues: ['charges'],
      providers: [processor],
      imports: [BullModule.registerQueue({ name: 'other' })],
    });
    apps_.current = app;
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    await gate.arrival;
    const closing = apps.close(app);
    gate.open();
    await closing;
    const after = await apps.beside(place, { queues: ['charges'] });
    expect(await outcomeOf(after, 'charge:1')).toMatchObject({ status: 'completed', result: 'both open' });
  });
});
