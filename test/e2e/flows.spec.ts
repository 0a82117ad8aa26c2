import type { INestApplicationContext } from '@nestjs/common';
import { FlowProducer, type Job } from 'bullmq';
import { PermanentError, type FlowNodeOptions } from 'nestjs-idempotent-jobs';
import { DeadLetterService } from 'nestjs-idempotent-jobs/dead-letters';
import { UsageError } from 'nestjs-idempotent-jobs/errors';
import { afterEach, describe, expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { bullQueue, idempotentQueue, lettersOf, outcomeOf, settled } from '../support/ledger.js';
import { Gate, processorOf } from '../support/processors.js';
import { BACKENDS } from '../support/scenario.js';

const byNumber = (a: number, b: number): number => a - b;
const QUICK = { attempts: 3, backoff: { baseMs: 10, capMs: 20 } };

describe.each(BACKENDS)('flows of operations, on %s', (backend) => {
  const apps = useApps();
  const start = async (act: (job: Job) => unknown = () => undefined) => {
    const runs: string[] = [];
    const charges = processorOf('charges', { effect: 'keyed', retry: QUICK }, async (job, operation) => {
      runs.push(operation.operationKey);
      await act(job);
      return { charged: (job.data as { amount: number }).amount };
    });
    const orders = processorOf('orders', { effect: 'keyed', retry: QUICK }, async (job, operation) => {
      runs.push(operation.operationKey);
      return { charges: Object.values(await job.getChildrenValues()) };
    });
    const { app, place } = await apps.fresh(backend, {
      queues: [{ name: 'charges', bullmq: { defaultJobOptions: { removeOnComplete: 100 } } }, 'orders'],
      providers: [charges, orders],
    });
    const producer = new FlowProducer({ connection: place.connection, prefix: place.prefix });
    return { app, runs, producer };
  };
  const treeOf = (app: INestApplicationContext, onFailure: Partial<FlowNodeOptions> = {}) => {
    const charge = (n: number) =>
      idempotentQueue(app, 'charges').flowJob(
        'charge',
        { amount: n },
        { operationKey: `charge:${n}`, tenantId: 'acme', ...onFailure },
      );
    const order = idempotentQueue(app, 'orders').flowJob(
      'order',
      {},
      { operationKey: 'order:1', tenantId: 'acme' },
    );
    return { ...order, children: [charge(1), charge(2)] };
  };

  it('the parent runs after its children, with their results; added again, nothing runs again', async () => {
    const { app, runs, producer } = await start();
    try {
      await producer.add(treeOf(app));
      expect(await settled(app, 'order:1')).toMatchObject({ status: 'completed' });
      expect(runs.slice(0, 2).sort()).toEqual(['charge:1', 'charge:2']);
      expect(runs[2]).toBe('order:1');
      const again = treeOf(app);
      for (const _ of [1, 2]) await producer.add(again);
      // As a queue that has forgotten its finished jobs: the ledger has not.
      await eventually(
        () => bullQueue(app, 'orders').getJobCounts(),
        (counts) => expect(counts).toMatchObject({ completed: 3, active: 0 }),
      );
      expect(runs).toHaveLength(3);
      for (const queue of ['charges', 'orders']) await bullQueue(app, queue).clean(0, 100, 'completed');
      await producer.add(treeOf(app));
      const [order] = await eventually(
        () => bullQueue(app, 'orders').getCompleted(),
        (jobs) => expect(jobs).toHaveLength(1),
      );
      const values = Object.values(await (order as Job).getChildrenValues()) as { charged: number }[];
      expect(values.map(({ charged }) => charged).sort(byNumber)).toEqual([1, 2]);
      expect((order as Job).returnvalue).toEqual((await outcomeOf(app, 'order:1'))?.result);
      expect(runs).toHaveLength(3);
    } finally {
      await producer.close();
    }
  });

  it('a child that was run before, on its own, is replayed into the parent', async () => {
    const { app, runs, producer } = await start();
    try {
      const request = { operationKey: 'charge:1', tenantId: 'acme' };
      await idempotentQueue(app, 'charges').enqueue('charge', { amount: 1 }, request);
      await settled(app, 'charge:1');
      await producer.add(treeOf(app));
      const { result } = await settled(app, 'order:1');
      expect(
        (result as { charges: { charged: number }[] }).charges.map(({ charged }) => charged).sort(byNumber),
      ).toEqual([1, 2]);
      expect(runs.sort()).toEqual(['charge:1', 'charge:2', 'order:1']);
    } finally {
      await producer.close();
    }
  });

  describe('one operation as a child of several parents', () => {
    const shared = async (act: (job: Job) => unknown = () => undefined) => {
      const seen: Record<string, unknown[]> = {};
      const runs: string[] = [];
      const charges = processorOf(
        'charges',
        { effect: 'keyed', retry: QUICK, leaseMs: 4000 },
        async (job, operation) => {
          runs.push(operation.operationKey);
          await act(job);
          return { charged: (job.data as { amount: number }).amount };
        },
      );
      const orders = processorOf('orders', { effect: 'keyed', retry: QUICK }, async (job, operation) => {
        seen[operation.operationKey] = Object.values(await job.getChildrenValues());
      });
      const { app, place } = await apps.fresh(backend, {
        queues: ['charges', 'orders'],
        providers: [charges, orders],
      });
      const producer = new FlowProducer({ connection: place.connection, prefix: place.prefix });
      producers.push(producer);
      const node = (queue: 'charges' | 'orders', operationKey: string, rest: Partial<FlowNodeOptions> = {}) =>
        idempotentQueue(app, queue).flowJob(queue, queue === 'charges' ? { amount: 5 } : {}, {
          operationKey,
          tenantId: 'acme',
          ...rest,
        });
      return { app, producer, runs, seen, node };
    };
    const producers: FlowProducer[] = [];
    afterEach(async () => {
      await Promise.all(producers.splice(0).map((producer) => producer.close()));
    });
    const result = { charged: 5 };

    it('each parent runs after it, with its result: while it runs, and when it has completed', async () => {
      const gate = new Gate();
      const { app, producer, runs, seen, node } = await shared(() => gate.pass());
      await producer.add({ ...node('orders', 'order:1'), children: [node('charges', 'charge:1')] });
      await gate.arrival;
      const child = node('charges', 'charge:1');
      await producer.add({ ...node('orders', 'order:2'), children: [child] });
      // The same node, in yet another tree.
      await producer.addBulk([{ ...node('orders', 'order:3'), children: [child] }]);
      await eventually(
        () => bullQueue(app, 'orders').getWaitingChildrenCount(),
        (count) => expect(count).toBe(3),
      );
      await eventually(
        () => bullQueue(app, 'charges').getJobCounts('waiting', 'active', 'delayed'),
        (counts) => expect(counts).toMatchObject({ active: 1, delayed: 2 }),
      );
      expect(seen).toEqual({});
      gate.open();
      for (const n of [1, 2, 3])
        expect(await settled(app, `order:${n}`)).toMatchObject({ status: 'completed' });
      await producer.add({ ...node('orders', 'order:4'), children: [child] });
      expect(await settled(app, 'order:4')).toMatchObject({ status: 'completed' });
      expect(seen).toEqual({
        'order:1': [result],
        'order:2': [result],
        'order:3': [result],
        'order:4': [result],
      });
      expect(runs).toEqual(['charge:1']);
    });

    it('one node in two places of a tree is waited for in both', async () => {
      const { app, producer, runs, seen, node } = await shared();
      const child = node('charges', 'charge:1');
      await producer.add({
        ...node('orders', 'order:all'),
        children: [
          { ...node('orders', 'order:1'), children: [child] },
          { ...node('orders', 'order:2'), children: [child] },
        ],
      });
      expect(await settled(app, 'order:all')).toMatchObject({ status: 'completed' });
      expect(seen).toMatchObject({ 'order:1': [result], 'order:2': [result] });
      expect(runs).toEqual(['charge:1']);
    });

    it('enqueued by itself and running, it is waited for by the parent of a flow', async () => {
      const gate = new Gate();
      const { app, producer, runs, seen, node } = await shared(() => gate.pass());
      await idempotentQueue(app, 'charges').enqueue(
        'charges',
        { amount: 5 },
        { operationKey: 'charge:1', tenantId: 'acme' },
      );
      await gate.arrival;
      await producer.add({ ...node('orders', 'order:1'), children: [node('charges', 'charge:1')] });
      await eventually(
        () => bullQueue(app, 'charges').getDelayedCount(),
        (count) => expect(count).toBe(1),
      );
      gate.open();
      expect(await settled(app, 'order:1')).toMatchObject({ status: 'completed' });
      expect(seen).toEqual({ 'order:1': [result] });
      expect(runs).toEqual(['charge:1']);
    });

    it('dead, it fails each parent that is told so, also one that is added later', async () => {
      const { app, producer, runs, node } = await shared(() => {
        throw new PermanentError('card declined');
      });
      for (const n of [1, 2]) {
        const child = node('charges', 'charge:1', { failParentOnFailure: true });
        await producer.add({ ...node('orders', `order:${n}`), children: [child] });
        expect(await settled(app, `order:${n}`)).toMatchObject({ status: 'dead' });
      }
      expect(runs).toEqual(['charge:1']);
      const dead = (await lettersOf(app)).map((letter) => letter.operation_key);
      expect(new Set(dead)).toEqual(new Set(['charge:1', 'order:1', 'order:2']));
    });
  });

  it('a child is retried under its policy before its parent hears of it', async () => {
    let failures = 0;
    const { app, producer } = await start(() => {
      failures += 1;
      if (failures === 1) throw new Error('not yet');
    });
    try {
      await producer.add(treeOf(app, { failParentOnFailure: true }));
      expect(await settled(app, 'order:1')).toMatchObject({ status: 'completed' });
    } finally {
      await producer.close();
    }
  });

  it('a dead child fails its parent where it is told to; the parent’s letter says that it is for good', async () => {
    const { app, runs, producer } = await start((job) => {
      if ((job.data as { amount: number }).amount === 1) throw new PermanentError('card declined');
    });
    try {
      await producer.add(treeOf(app, { failParentOnFailure: true }));
      expect(await settled(app, 'charge:1')).toMatchObject({ status: 'dead' });
      expect(await settled(app, 'order:1')).toMatchObject({ status: 'dead', attempts: 1 });
      const letters = await lettersOf(app);
      expect(letters).toMatchObject([
        { operation_key: 'charge:1', reason: 'permanent_error' },
        { operation_key: 'order:1', reason: 'permanent_error' },
      ]);
      expect(letters[1]?.error?.message).toMatch(/^child .* failed$/);
      expect(runs).not.toContain('order:1');
    } finally {
      await producer.close();
    }
  });

  it.each([
    { ignoreDependencyOnFailure: true },
    { continueParentOnFailure: true },
    { removeDependencyOnFailure: true },
  ])('a dead child does not hold up its parent with %o', async (onFailure) => {
    const { app, producer } = await start((job) => {
      if ((job.data as { amount: number }).amount === 1) throw new PermanentError('card declined');
    });
    try {
      await producer.add(treeOf(app, onFailure));
      expect(await settled(app, 'order:1')).toMatchObject({ status: 'completed' });
    } finally {
      await producer.close();
    }
  });

  it('a dead child leaves its parent waiting where nothing is said', async () => {
    const { app, producer } = await start((job) => {
      if ((job.data as { amount: number }).amount === 1) throw new PermanentError('card declined');
    });
    try {
      await producer.add(treeOf(app));
      await settled(app, 'charge:1');
      await settled(app, 'charge:2');
      expect(await bullQueue(app, 'orders').getWaitingChildrenCount()).toBe(1);
      expect(await outcomeOf(app, 'order:1')).toBeUndefined();
    } finally {
      await producer.close();
    }
  });

  it('a dead child that is redriven feeds its waiting parent once its own job is retried, by a replay', async () => {
    let isDeclined = true;
    const { app, runs, producer } = await start((job) => {
      if ((job.data as { amount: number }).amount === 1 && isDeclined)
        throw new PermanentError('card declined');
    });
    try {
      const { children = [] } = await producer.add(treeOf(app));
      await settled(app, 'charge:1');
      isDeclined = false;
      const by = { actor: 'ada', note: 'the card works again' };
      await app.get(DeadLetterService).redrive({ tenantId: 'acme', operationKey: 'charge:1' }, by);
      await eventually(
        () => outcomeOf(app, 'charge:1'),
        (outcome) => expect(outcome).toMatchObject({ status: 'completed' }),
      );
      expect(await outcomeOf(app, 'order:1')).toBeUndefined();
      const charge = await bullQueue(app, 'charges').getJob(children[0]?.job.id as string);
      await (charge as Job).retry('failed', { resetAttemptsMade: true, resetAttemptsStarted: true });
      const { result } = await settled(app, 'order:1');
      expect((result as { charges: unknown[] }).charges).toHaveLength(2);
      expect(runs.filter((key) => key === 'charge:1')).toHaveLength(2);
    } finally {
      await producer.close();
    }
  });

  it('the node carries delay, priority, deadline and the queue’s own job options; what a flow cannot keep is refused', async () => {
    const { app, producer } = await start();
    await producer.close();
    const queue = idempotentQueue(app, 'charges');
    const options = { operationKey: 'charge:1', tenantId: 'acme' };
    const deadline = new Date('2100-01-01T00:00:00Z');
    expect(
      queue.flowJob('charge', { amount: 1 }, { ...options, delayMs: 50, priority: 3, deadline }),
    ).toMatchObject({
      name: 'charge',
      queueName: 'charges',
      data: { operation: { ...options, deadlineAt: '2100-01-01T00:00:00.000Z' }, payload: { amount: 1 } },
      opts: { delay: 50, priority: 3, removeOnComplete: 100, jobId: expect.stringMatching(/^op-/) as string },
    });
    for (const refused of [{ durability: 'ledger' }, { transaction: {} }, { parent: {} }, { repeat: {} }])
      expect(() => queue.flowJob('charge', {}, { ...options, ...refused })).toThrow(UsageError);
  });
});
