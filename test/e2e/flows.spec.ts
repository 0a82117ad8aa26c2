import { type FlowJob, FlowProducer, type Job } from 'bullmq';
import {
  type FlowNodeOptions,
  type IdempotentProcessorOptions,
  type Outcome,
  PermanentError,
} from 'nestjs-idempotent-jobs';
import { DeadLetterService } from 'nestjs-idempotent-jobs/dead-letters';
import { UsageError } from 'nestjs-idempotent-jobs/errors';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { useOneApp } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { bullQueue, enqueue, idempotentQueue, lettersOf, outcomeOf, settled } from '../support/ledger.js';
import { Gate, processorOf, Scripts } from '../support/processors.js';
import { BACKENDS } from '../support/scenario.js';

const byNumber = (a: number, b: number): number => a - b;
const QUICK = { attempts: 3, backoff: { baseMs: 10, capMs: 20 } };

/** Pairs of queues, for charges and their orders. Cases that count the jobs of their queues have a pair of their own. */
const PAIRS = {
  trees: {},
  repeated: {},
  waiting: {},
  parents: { leaseMs: 4000 },
  running: { leaseMs: 4000 },
  enqueued: { leaseMs: 4000 },
} satisfies Record<string, IdempotentProcessorOptions>;
type Pair = keyof typeof PAIRS;
const chargesOf = (pair: Pair): string => `${pair}-charges`;
const ordersOf = (pair: Pair): string => `${pair}-orders`;

describe.each(BACKENDS)('flows of operations, on %s', (backend) => {
  // One application for all cases. Each has a tenant of its own.
  const scripts = new Scripts();
  const pairs = Object.keys(PAIRS) as Pair[];
  const app = useOneApp(backend, {
    queues: pairs.flatMap((pair) => [
      { name: chargesOf(pair), bullmq: { defaultJobOptions: { removeOnComplete: 100 } } },
      ordersOf(pair),
    ]),
    providers: pairs.flatMap((pair) => [
      processorOf(chargesOf(pair), { effect: 'keyed', retry: QUICK, ...PAIRS[pair] }, scripts.handler),
      processorOf(ordersOf(pair), { effect: 'keyed', retry: QUICK }, scripts.handler),
    ]),
  });
  let producer: FlowProducer;
  beforeAll(() => {
    const { connection, prefix } = bullQueue(app(), chargesOf('trees')).opts;
    producer = new FlowProducer({ connection, prefix });
  });
  afterAll(() => producer.close());

  const start = (act: (job: Job) => unknown = () => undefined) => {
    const runs: string[] = [];
    const tenant = scripts.tenantWith(async (job, operation) => {
      runs.push(operation.operationKey);
      if (job.name === 'order') return { charges: Object.values(await job.getChildrenValues()) };
      await act(job);
      return { charged: (job.data as { amount: number }).amount };
    });
    return { tenant, runs };
  };
  const treeOf = (tenantId: string, onFailure: Partial<FlowNodeOptions> = {}, pair: Pair = 'trees') => {
    const charge = (n: number) =>
      idempotentQueue(app(), chargesOf(pair)).flowJob(
        'charge',
        { amount: n },
        { operationKey: `charge:${n}`, tenantId, ...onFailure },
      );
    const order = idempotentQueue(app(), ordersOf(pair)).flowJob(
      'order',
      {},
      { operationKey: 'order:1', tenantId },
    );
    return { ...order, children: [charge(1), charge(2)] };
  };
  const ended = (tenant: string, key = 'order:1'): Promise<Outcome> => settled(app(), key, tenant);

  it('the parent runs after its children, with their results; added again, nothing runs again', async () => {
    const { tenant, runs } = start();
    const tree = (): FlowJob => treeOf(tenant, {}, 'repeated');
    await producer.add(tree());
    expect(await ended(tenant)).toMatchObject({ status: 'completed' });
    expect(runs.slice(0, 2).sort()).toEqual(['charge:1', 'charge:2']);
    expect(runs[2]).toBe('order:1');
    const again = tree();
    for (const _ of [1, 2]) await producer.add(again);
    // As a queue that has forgotten its finished jobs: the ledger has not.
    await eventually(
      () => bullQueue(app(), 'repeated-orders').getJobCounts(),
      (counts) => expect(counts).toMatchObject({ completed: 3, active: 0 }),
    );
    expect(runs).toHaveLength(3);
    for (const queue of ['repeated-charges', 'repeated-orders'])
      await bullQueue(app(), queue).clean(0, 100, 'completed');
    await producer.add(tree());
    const [order] = await eventually(
      () => bullQueue(app(), 'repeated-orders').getCompleted(),
      (jobs) => expect(jobs).toHaveLength(1),
    );
    const values = Object.values(await (order as Job).getChildrenValues()) as { charged: number }[];
    expect(values.map(({ charged }) => charged).sort(byNumber)).toEqual([1, 2]);
    expect((order as Job).returnvalue).toEqual((await outcomeOf(app(), 'order:1', tenant))?.result);
    expect(runs).toHaveLength(3);
  });

  it('a child that was run before, on its own, is replayed into the parent', async () => {
    const { tenant, runs } = start();
    await enqueue(app(), 'trees-charges', 'charge', { amount: 1 }, 'charge:1', tenant);
    await ended(tenant, 'charge:1');
    await producer.add(treeOf(tenant));
    const { result } = await ended(tenant);
    expect(
      (result as { charges: { charged: number }[] }).charges.map(({ charged }) => charged).sort(byNumber),
    ).toEqual([1, 2]);
    expect(runs.sort()).toEqual(['charge:1', 'charge:2', 'order:1']);
  });

  describe('one operation as a child of several parents', () => {
    const shared = (pair: Pair, act: (job: Job) => unknown = () => undefined) => {
      const seen: Record<string, unknown[]> = {};
      const runs: string[] = [];
      const tenant = scripts.tenantWith(async (job, operation) => {
        if (job.name === 'order') {
          seen[operation.operationKey] = Object.values(await job.getChildrenValues());
          return undefined;
        }
        runs.push(operation.operationKey);
        await act(job);
        return { charged: (job.data as { amount: number }).amount };
      });
      const order = (operationKey: string) =>
        idempotentQueue(app(), ordersOf(pair)).flowJob('order', {}, { operationKey, tenantId: tenant });
      const charge = (rest: Partial<FlowNodeOptions> = {}) =>
        idempotentQueue(app(), chargesOf(pair)).flowJob(
          'charge',
          { amount: 5 },
          { operationKey: 'charge:1', tenantId: tenant, ...rest },
        );
      return { tenant, runs, seen, order, charge };
    };
    const result = { charged: 5 };

    it('each parent runs after it, with its result: while it runs, and when it has completed', async () => {
      const gate = new Gate();
      const { tenant, runs, seen, order, charge } = shared('running', () => gate.pass());
      await producer.add({ ...order('order:1'), children: [charge()] });
      await gate.arrival;
      const child = charge();
      await producer.add({ ...order('order:2'), children: [child] });
      // The same node, in yet another tree.
      await producer.addBulk([{ ...order('order:3'), children: [child] }]);
      await eventually(
        () => bullQueue(app(), 'running-orders').getWaitingChildrenCount(),
        (count) => expect(count).toBe(3),
      );
      await eventually(
        () => bullQueue(app(), 'running-charges').getJobCounts('waiting', 'active', 'delayed'),
        (counts) => expect(counts).toMatchObject({ active: 1, delayed: 2 }),
      );
      expect(seen).toEqual({});
      gate.open();
      for (const n of [1, 2, 3])
        expect(await ended(tenant, `order:${n}`)).toMatchObject({ status: 'completed' });
      await producer.add({ ...order('order:4'), children: [child] });
      expect(await ended(tenant, 'order:4')).toMatchObject({ status: 'completed' });
      expect(seen).toEqual({
        'order:1': [result],
        'order:2': [result],
        'order:3': [result],
        'order:4': [result],
      });
      expect(runs).toEqual(['charge:1']);
    });

    it('one node in two places of a tree is waited for in both', async () => {
      const { tenant, runs, seen, order, charge } = shared('parents');
      const child = charge();
      await producer.add({
        ...order('order:all'),
        children: [
          { ...order('order:1'), children: [child] },
          { ...order('order:2'), children: [child] },
        ],
      });
      expect(await ended(tenant, 'order:all')).toMatchObject({ status: 'completed' });
      expect(seen).toMatchObject({ 'order:1': [result], 'order:2': [result] });
      expect(runs).toEqual(['charge:1']);
    });

    it('enqueued by itself and running, it is waited for by the parent of a flow', async () => {
      const gate = new Gate();
      const { tenant, runs, seen, order, charge } = shared('enqueued', () => gate.pass());
      await enqueue(app(), 'enqueued-charges', 'charge', { amount: 5 }, 'charge:1', tenant);
      await gate.arrival;
      await producer.add({ ...order('order:1'), children: [charge()] });
      await eventually(
        () => bullQueue(app(), 'enqueued-charges').getDelayedCount(),
        (count) => expect(count).toBe(1),
      );
      gate.open();
      expect(await ended(tenant)).toMatchObject({ status: 'completed' });
      expect(seen).toEqual({ 'order:1': [result] });
      expect(runs).toEqual(['charge:1']);
    });

    it('dead, it fails each parent that is told so, also one that is added later', async () => {
      const { tenant, runs, order, charge } = shared('parents', () => {
        throw new PermanentError('card declined');
      });
      for (const n of [1, 2]) {
        const child = charge({ failParentOnFailure: true });
        await producer.add({ ...order(`order:${n}`), children: [child] });
        expect(await ended(tenant, `order:${n}`)).toMatchObject({ status: 'dead' });
      }
      expect(runs).toEqual(['charge:1']);
      const dead = (await lettersOf(app(), tenant)).map((letter) => letter.operation_key);
      expect(new Set(dead)).toEqual(new Set(['charge:1', 'order:1', 'order:2']));
    });
  });

  it('a child is retried under its policy before its parent hears of it', async () => {
    let failures = 0;
    const { tenant } = start(() => {
      failures += 1;
      if (failures === 1) throw new Error('not yet');
    });
    await producer.add(treeOf(tenant, { failParentOnFailure: true }));
    expect(await ended(tenant)).toMatchObject({ status: 'completed' });
  });

  it('a dead child fails its parent where it is told to; the parent’s letter says that it is for good', async () => {
    const { tenant, runs } = start((job) => {
      if ((job.data as { amount: number }).amount === 1) throw new PermanentError('card declined');
    });
    await producer.add(treeOf(tenant, { failParentOnFailure: true }));
    expect(await ended(tenant, 'charge:1')).toMatchObject({ status: 'dead' });
    expect(await ended(tenant)).toMatchObject({ status: 'dead', attempts: 1 });
    const letters = await lettersOf(app(), tenant);
    expect(letters).toMatchObject([
      { operation_key: 'charge:1', reason: 'permanent_error' },
      { operation_key: 'order:1', reason: 'permanent_error' },
    ]);
    expect(letters[1]?.error?.message).toMatch(/^child .* failed$/);
    expect(runs).not.toContain('order:1');
  });

  it.each([
    { ignoreDependencyOnFailure: true },
    { continueParentOnFailure: true },
    { removeDependencyOnFailure: true },
  ])('a dead child does not hold up its parent with %o', async (onFailure) => {
    const { tenant } = start((job) => {
      if ((job.data as { amount: number }).amount === 1) throw new PermanentError('card declined');
    });
    await producer.add(treeOf(tenant, onFailure));
    expect(await ended(tenant)).toMatchObject({ status: 'completed' });
  });

  it('a dead child leaves its parent waiting where nothing is said', async () => {
    const { tenant } = start((job) => {
      if ((job.data as { amount: number }).amount === 1) throw new PermanentError('card declined');
    });
    await producer.add(treeOf(tenant, {}, 'waiting'));
    await ended(tenant, 'charge:1');
    await ended(tenant, 'charge:2');
    expect(await bullQueue(app(), 'waiting-orders').getWaitingChildrenCount()).toBe(1);
    expect(await outcomeOf(app(), 'order:1', tenant)).toBeUndefined();
  });

  it('a dead child that is redriven feeds its waiting parent once its own job is retried, by a replay', async () => {
    let isDeclined = true;
    const { tenant, runs } = start((job) => {
      if ((job.data as { amount: number }).amount === 1 && isDeclined)
        throw new PermanentError('card declined');
    });
    const { children = [] } = await producer.add(treeOf(tenant));
    await ended(tenant, 'charge:1');
    isDeclined = false;
    const by = { actor: 'ada', note: 'the card works again' };
    await app().get(DeadLetterService).redrive({ tenantId: tenant, operationKey: 'charge:1' }, by);
    await eventually(
      () => outcomeOf(app(), 'charge:1', tenant),
      (outcome) => expect(outcome).toMatchObject({ status: 'completed' }),
    );
    expect(await outcomeOf(app(), 'order:1', tenant)).toBeUndefined();
    const charge = await bullQueue(app(), 'trees-charges').getJob(children[0]?.job.id as string);
    await (charge as Job).retry('failed', { resetAttemptsMade: true, resetAttemptsStarted: true });
    const { result } = await ended(tenant);
    expect((result as { charges: unknown[] }).charges).toHaveLength(2);
    expect(runs.filter((key) => key === 'charge:1')).toHaveLength(2);
  });

  it('the node carries delay, priority, deadline and the queue’s own job options; what a flow cannot keep is refused', async () => {
    const queue = idempotentQueue(app(), 'trees-charges');
    const options = { operationKey: 'charge:1', tenantId: 'acme' };
    const deadline = new Date('2100-01-01T00:00:00Z');
    expect(
      queue.flowJob('charge', { amount: 1 }, { ...options, delayMs: 50, priority: 3, deadline }),
    ).toMatchObject({
      name: 'charge',
      queueName: 'trees-charges',
      data: { operation: { ...options, deadlineAt: '2100-01-01T00:00:00.000Z' }, payload: { amount: 1 } },
      opts: { delay: 50, priority: 3, removeOnComplete: 100, jobId: expect.stringMatching(/^op-/) as string },
    });
    for (const refused of [{ durability: 'ledger' }, { transaction: {} }, { parent: {} }, { repeat: {} }])
      expect(() => queue.flowJob('charge', {}, { ...options, ...refused })).toThrow(UsageError);
  });
});
