import {
  type CurrentOperation,
  currentOperation,
  type IdempotentProcessorOptions,
  InDoubtError,
  type Outcome,
  TransientError,
} from 'nestjs-idempotent-jobs';
import { IdempotencyService } from 'nestjs-idempotent-jobs/calls';
import { DependencyGuard, type RejectionCause } from 'nestjs-idempotent-jobs/dependencies';
import { type JobEvent, JobEvents } from 'nestjs-idempotent-jobs/observe';
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { useOneApp } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { asTenant, enqueue, outcomeOf, settled, stepOf } from '../support/ledger.js';
import { fallingBackProcessorOf, type Handler, processorOf, Scripts } from '../support/processors.js';
import { BACKENDS, dataSourceOf } from '../support/scenario.js';

const QUICK = { attempts: 4, backoff: { baseMs: 10, capMs: 20 } };
/** Only a person opens it, and those it turns away come again soon. */
const STEADY = { minimumCalls: 1_000, openMs: 200 };

const QUEUES = {
  plain: { effect: 'keyed', retry: QUICK },
  natural: { effect: 'natural', retry: QUICK },
} satisfies Record<string, IdempotentProcessorOptions>;

/** Those whose processors have a fallback of their own. */
const FALLING_BACK = {
  unrepeatable: { effect: 'unrepeatable', dependency: 'gateway' },
  transactional: { effect: 'transactional', dependency: 'gateway' },
  keyed: { effect: 'keyed', dependency: 'gateway', retry: QUICK },
} satisfies Record<string, IdempotentProcessorOptions>;

type StandIn = (operation: CurrentOperation, reason: RejectionCause) => unknown;

describe.each(BACKENDS)('fallbacks, on %s', (backend) => {
  // One application for all cases. Each has a tenant of its own.
  const scripts = new Scripts();
  const standIns = new Map<string, StandIn>();
  const app = useOneApp(backend, {
    queues: [...Object.keys(QUEUES), ...Object.keys(FALLING_BACK)],
    providers: [
      ...Object.entries(QUEUES).map(([queue, options]) => processorOf(queue, options, scripts.handler)),
      ...Object.entries(FALLING_BACK).map(([queue, options]) =>
        fallingBackProcessorOf(queue, options, scripts.handler, (operation, reason) =>
          standIns.get(operation.tenantId)?.(operation, reason),
        ),
      ),
    ],
    jobs: { dependencies: { rates: { breaker: STEADY }, gateway: { breaker: STEADY } } },
  });
  const events: JobEvent[] = [];
  let guard: DependencyGuard;
  beforeAll(() => {
    guard = app().get(DependencyGuard);
    app()
      .get(JobEvents)
      .subscribe((event) => events.push(event));
  });
  beforeEach(() => {
    guard.resetCircuit('rates');
    guard.resetCircuit('gateway');
  });

  /** Orders something for a tenant whose orders are handled so, and answers with the tenant. */
  const order = async (
    queue: keyof typeof QUEUES | keyof typeof FALLING_BACK,
    handler: Handler,
    standIn: StandIn = () => undefined,
  ): Promise<string> => {
    const tenant = scripts.tenantWith(handler);
    standIns.set(tenant, standIn);
    await enqueue(app(), queue, 'order', {}, 'order:1', tenant);
    return tenant;
  };
  const ended = (tenant: string, key = 'order:1'): Promise<Outcome> => settled(app(), key, tenant);
  const eventsOf = (tenant: string): JobEvent[] => events.filter(({ tenantId }) => tenantId === tenant);
  const usesOf = (tenant: string): string[] =>
    eventsOf(tenant).flatMap((event) =>
      event.kind === 'fallback_used' ? [`${event.operationKey}: ${event.dependency} ${event.reason}`] : [],
    );

  /** The events of an operation are complete once this one is there: it is told after the outcome is written. */
  const completionOf = (tenant: string): Promise<JobEvent | undefined> =>
    eventually(
      () => eventsOf(tenant).find(({ kind }) => kind === 'completed'),
      (event) => expect(event).toBeDefined(),
    );

  it('a processor’s own completes the operation as its first attempt, and whoever learns the result learns that it is a stand-in', async () => {
    let calls = 0;
    const seen: object[] = [];
    guard.forceOpen('gateway');
    const tenant = await order(
      'unrepeatable',
      () => (calls += 1),
      (operation, reason) => {
        const { operationKey, attempt } = currentOperation();
        seen.push({ operationKey, attempt, reason, isSame: operation === currentOperation() });
        return { queued: true };
      },
    );
    expect(await ended(tenant)).toMatchObject({
      status: 'completed',
      attempts: 1,
      result: { queued: true },
      degraded: 'gateway: circuit_open',
    });
    expect(seen).toEqual([{ operationKey: 'order:1', attempt: 1, reason: 'circuit_open', isSame: true }]);
    expect(await completionOf(tenant)).toMatchObject({
      operationKey: 'order:1',
      degraded: 'gateway: circuit_open',
    });
    expect(usesOf(tenant)).toEqual(['order:1: gateway circuit_open']);

    guard.resetCircuit('gateway');
    await enqueue(app(), 'unrepeatable', 'order', {}, 'order:1', tenant);
    await enqueue(app(), 'unrepeatable', 'order', {}, 'order:2', tenant);
    expect(await ended(tenant, 'order:2')).toMatchObject({ result: 1, degraded: undefined });
    expect(await outcomeOf(app(), 'order:1', tenant)).toMatchObject({ result: { queued: true } });
    expect(calls).toBe(1);
  });

  it('a processor’s own writes with its outcome, where the effect is transactional', async () => {
    await dataSourceOf(app()).query('CREATE TABLE later (operation_key text)');
    guard.forceOpen('gateway');
    const tenant = await order(
      'transactional',
      () => 'charged',
      async ({ transaction, operationKey }) => {
        await transaction.query('INSERT INTO later VALUES ($1)', [operationKey]);
        return 'noted';
      },
    );
    expect(await ended(tenant)).toMatchObject({
      result: 'noted',
      attempts: 1,
      degraded: 'gateway: circuit_open',
    });
    expect(await dataSourceOf(app()).query('SELECT * FROM later')).toEqual([{ operation_key: 'order:1' }]);
  });

  it('a processor’s own that throws fails the attempt like a handler, and has stood in for nothing', async () => {
    guard.forceOpen('gateway');
    const tenant = await order(
      'keyed',
      () => 'charged',
      () => {
        if (currentOperation().attempt === 3) guard.resetCircuit('gateway');
        throw new TransientError('there is no room to note it');
      },
    );
    expect(await ended(tenant)).toMatchObject({
      status: 'completed',
      attempts: 4,
      failures: 3,
      result: 'charged',
      degraded: undefined,
    });
    await completionOf(tenant);
    expect(usesOf(tenant)).toEqual([]);
  });

  it('a processor’s own does not stand in where an earlier attempt may have had its effect', async () => {
    let stoodIn = 0;
    const tenant = await order(
      'keyed',
      (_job, { attempt }) => {
        if (attempt > 1) return { attempt };
        guard.forceOpen('gateway');
        throw new InDoubtError('nobody answered');
      },
      () => (stoodIn += 1),
    );
    await eventually(
      () => eventsOf(tenant).filter(({ kind }) => kind === 'deferred'),
      (held) => expect(held.length).toBeGreaterThanOrEqual(2),
    );
    expect(await outcomeOf(app(), 'order:1', tenant)).toMatchObject({ status: 'retrying', attempts: 1 });
    guard.resetCircuit('gateway');
    expect(await ended(tenant)).toMatchObject({
      result: { attempt: 2 },
      attempts: 2,
      degraded: undefined,
    });
    expect(stoodIn).toBe(0);
    await completionOf(tenant);
    expect(usesOf(tenant)).toEqual([]);
  });

  it('of a guarded call marks the operation around it, and keeps the first reason', async () => {
    guard.forceOpen('rates');
    guard.forceOpen('gateway');
    const tenant = await order('plain', async () => {
      const rate = await guard.call('rates', () => 2, { fallback: () => 1 });
      const charge = await guard.call('gateway', () => 'charged', { fallback: () => 'noted' });
      return { rate, charge };
    });
    expect(await ended(tenant)).toMatchObject({
      attempts: 1,
      result: { rate: 1, charge: 'noted' },
      degraded: 'rates: circuit_open',
    });
    await completionOf(tenant);
    expect(usesOf(tenant)).toEqual(['order:1: rates circuit_open', 'order:1: gateway circuit_open']);
  });

  it('of an attempt that fails leaves no mark on the one that completes', async () => {
    guard.forceOpen('rates');
    const tenant = await order('plain', async (_job, { attempt }) => {
      const rate = await guard.call('rates', () => 2, { fallback: () => 1 });
      if (attempt > 1) return { rate };
      guard.resetCircuit('rates');
      throw new TransientError('refused');
    });
    expect(await ended(tenant)).toMatchObject({
      attempts: 2,
      result: { rate: 2 },
      degraded: undefined,
    });
  });

  it('in a step mark the operation, also when the step is replayed in a later attempt', async () => {
    let asked = 0;
    guard.forceOpen('rates');
    const tenant = await order('natural', async (_job, { step, attempt }) => {
      const rate = await step('rate', () => {
        asked += 1;
        return guard.call('rates', () => 2, { fallback: () => 1 });
      });
      if (attempt > 1) return { rate };
      guard.resetCircuit('rates');
      throw new TransientError('refused');
    });
    expect(await ended(tenant)).toMatchObject({
      status: 'completed',
      attempts: 2,
      result: { rate: 1 },
      degraded: 'rates: circuit_open',
    });
    expect(await stepOf(app(), 'order:1', 'rate', tenant)).toMatchObject({
      attempts: 1,
      degraded: 'rates: circuit_open',
    });
    expect(asked).toBe(1);
  });

  it('in once() mark the call, and the operation around whoever is answered with it later', async () => {
    const rate = (): Promise<number> =>
      app()
        .get(IdempotencyService)
        .once('rate:today', () => guard.call('rates', () => 2, { fallback: () => 1 }));
    const tenant = scripts.tenantWith(rate);
    guard.forceOpen('rates');
    expect(await asTenant(app(), tenant, rate)).toBe(1);
    guard.resetCircuit('rates');
    await enqueue(app(), 'natural', 'order', {}, 'order:1', tenant);
    expect(await ended(tenant)).toMatchObject({ result: 1, degraded: 'rates: circuit_open' });
    expect(await outcomeOf(app(), 'rate:today', tenant)).toMatchObject({
      attempts: 1,
      degraded: 'rates: circuit_open',
    });
  });

  it('of the handler’s own are told with markDegraded(): in few words, the first of which stay', async () => {
    const tenant = await order('plain', (job, operation) => {
      if (job.name === 'plain') return 'real';
      operation.markDegraded(job.name === 'long' ? `${'no '.repeat(100)}\0` : 'no rate for today');
      operation.markDegraded('and no stock either');
      return 'stand-in';
    });
    await enqueue(app(), 'plain', 'long', {}, 'order:2', tenant);
    await enqueue(app(), 'plain', 'plain', {}, 'order:3', tenant);
    expect(await ended(tenant)).toMatchObject({ result: 'stand-in', degraded: 'no rate for today' });
    expect((await ended(tenant, 'order:2')).degraded).toBe('no '.repeat(100).slice(0, 200));
    expect(await ended(tenant, 'order:3')).toMatchObject({ result: 'real', degraded: undefined });
    await eventually(
      () => eventsOf(tenant).filter(({ kind }) => kind === 'completed'),
      (completions) => expect(completions).toHaveLength(3),
    );
    expect(usesOf(tenant)).toEqual([]);
  });
});
