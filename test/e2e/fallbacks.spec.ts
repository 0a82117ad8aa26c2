import type { INestApplicationContext, Provider } from '@nestjs/common';
import { currentOperation, InDoubtError, TransientError } from 'nestjs-idempotent-jobs';
import { IdempotencyService } from 'nestjs-idempotent-jobs/calls';
import { DependencyGuard } from 'nestjs-idempotent-jobs/dependencies';
import { type JobEvent, JobEvents } from 'nestjs-idempotent-jobs/observe';
import { describe, expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { asTenant, enqueue, outcomeOf, settled, stepOf } from '../support/ledger.js';
import { fallingBackProcessorOf, processorOf } from '../support/processors.js';
import { BACKENDS, dataSourceOf } from '../support/scenario.js';

const QUICK = { attempts: 4, backoff: { baseMs: 10, capMs: 20 } };
/** Only a person opens it, and those it turns away come again soon. */
const STEADY = { minimumCalls: 1_000, openMs: 200 };

describe.each(BACKENDS)('fallbacks, on %s', (backend) => {
  const apps = useApps();

  const begin = async (
    providers: readonly Provider[],
  ): Promise<{ app: INestApplicationContext; guard: DependencyGuard; events: JobEvent[] }> => {
    const { app } = await apps.fresh(backend, {
      queues: ['orders'],
      providers,
      jobs: { dependencies: { rates: { breaker: STEADY }, gateway: { breaker: STEADY } } },
    });
    const events: JobEvent[] = [];
    app.get(JobEvents).subscribe((event) => events.push(event));
    return { app, guard: app.get(DependencyGuard), events };
  };
  const usesOf = (events: readonly JobEvent[]): string[] =>
    events.flatMap((event) =>
      event.kind === 'fallback_used' ? [`${event.operationKey}: ${event.dependency} ${event.reason}`] : [],
    );

  /** The events of an operation are complete once this one is there: it is told after the outcome is written. */
  const completionIn = (events: readonly JobEvent[]): Promise<JobEvent | undefined> =>
    eventually(
      () => events.find(({ kind }) => kind === 'completed'),
      (event) => expect(event).toBeDefined(),
    );

  it('a processor’s own completes the operation as its first attempt, and whoever learns the result learns that it is a stand-in', async () => {
    let calls = 0;
    const seen: object[] = [];
    const { app, guard, events } = await begin([
      fallingBackProcessorOf(
        'orders',
        { effect: 'unrepeatable', dependency: 'gateway' },
        () => (calls += 1),
        (operation, reason) => {
          const { operationKey, attempt } = currentOperation();
          seen.push({ operationKey, attempt, reason, isSame: operation === currentOperation() });
          return { queued: true };
        },
      ),
    ]);
    guard.forceOpen('gateway');
    await enqueue(app, 'orders', 'order', {}, 'order:1');
    expect(await settled(app, 'order:1')).toMatchObject({
      status: 'completed',
      attempts: 1,
      result: { queued: true },
      degraded: 'gateway: circuit_open',
    });
    expect(seen).toEqual([{ operationKey: 'order:1', attempt: 1, reason: 'circuit_open', isSame: true }]);
    expect(await completionIn(events)).toMatchObject({
      operationKey: 'order:1',
      degraded: 'gateway: circuit_open',
    });
    expect(usesOf(events)).toEqual(['order:1: gateway circuit_open']);

    guard.resetCircuit('gateway');
    await enqueue(app, 'orders', 'order', {}, 'order:1');
    await enqueue(app, 'orders', 'order', {}, 'order:2');
    expect(await settled(app, 'order:2')).toMatchObject({ result: 1, degraded: undefined });
    expect(await outcomeOf(app, 'order:1')).toMatchObject({ result: { queued: true } });
    expect(calls).toBe(1);
  });

  it('a processor’s own writes with its outcome, where the effect is transactional', async () => {
    const { app, guard } = await begin([
      fallingBackProcessorOf(
        'orders',
        { effect: 'transactional', dependency: 'gateway' },
        () => 'charged',
        async ({ transaction, operationKey }) => {
          await transaction.query('INSERT INTO later VALUES ($1)', [operationKey]);
          return 'noted';
        },
      ),
    ]);
    await dataSourceOf(app).query('CREATE TABLE later (operation_key text)');
    guard.forceOpen('gateway');
    await enqueue(app, 'orders', 'order', {}, 'order:1');
    expect(await settled(app, 'order:1')).toMatchObject({
      result: 'noted',
      attempts: 1,
      degraded: 'gateway: circuit_open',
    });
    expect(await dataSourceOf(app).query('SELECT * FROM later')).toEqual([{ operation_key: 'order:1' }]);
  });

  it('a processor’s own that throws fails the attempt like a handler, and has stood in for nothing', async () => {
    const { app, guard, events } = await begin([
      fallingBackProcessorOf(
        'orders',
        { effect: 'keyed', dependency: 'gateway', retry: QUICK },
        () => 'charged',
        () => {
          if (currentOperation().attempt === 3) guard.resetCircuit('gateway');
          throw new TransientError('there is no room to note it');
        },
      ),
    ]);
    guard.forceOpen('gateway');
    await enqueue(app, 'orders', 'order', {}, 'order:1');
    expect(await settled(app, 'order:1')).toMatchObject({
      status: 'completed',
      attempts: 4,
      failures: 3,
      result: 'charged',
      degraded: undefined,
    });
    await completionIn(events);
    expect(usesOf(events)).toEqual([]);
  });

  it('a processor’s own does not stand in where an earlier attempt may have had its effect', async () => {
    let stoodIn = 0;
    const { app, guard, events } = await begin([
      fallingBackProcessorOf(
        'orders',
        { effect: 'keyed', dependency: 'gateway', retry: QUICK },
        (_job, { attempt }) => {
          if (attempt > 1) return { attempt };
          guard.forceOpen('gateway');
          throw new InDoubtError('nobody answered');
        },
        () => (stoodIn += 1),
      ),
    ]);
    await enqueue(app, 'orders', 'order', {}, 'order:1');
    await eventually(
      () => events.filter(({ kind }) => kind === 'deferred'),
      (held) => expect(held.length).toBeGreaterThanOrEqual(2),
    );
    expect(await outcomeOf(app, 'order:1')).toMatchObject({ status: 'retrying', attempts: 1 });
    guard.resetCircuit('gateway');
    expect(await settled(app, 'order:1')).toMatchObject({
      result: { attempt: 2 },
      attempts: 2,
      degraded: undefined,
    });
    expect(stoodIn).toBe(0);
    await completionIn(events);
    expect(usesOf(events)).toEqual([]);
  });

  it('of a guarded call marks the operation around it, and keeps the first reason', async () => {
    const { app, guard, events } = await begin([
      processorOf('orders', { effect: 'keyed' }, async () => {
        const rate = await guard.call('rates', () => 2, { fallback: () => 1 });
        const charge = await guard.call('gateway', () => 'charged', { fallback: () => 'noted' });
        return { rate, charge };
      }),
    ]);
    guard.forceOpen('rates');
    guard.forceOpen('gateway');
    await enqueue(app, 'orders', 'order', {}, 'order:1');
    expect(await settled(app, 'order:1')).toMatchObject({
      attempts: 1,
      result: { rate: 1, charge: 'noted' },
      degraded: 'rates: circuit_open',
    });
    await completionIn(events);
    expect(usesOf(events)).toEqual(['order:1: rates circuit_open', 'order:1: gateway circuit_open']);
  });

  it('of an attempt that fails leaves no mark on the one that completes', async () => {
    const { app, guard } = await begin([
      processorOf('orders', { effect: 'keyed', retry: QUICK }, async (_job, { attempt }) => {
        const rate = await guard.call('rates', () => 2, { fallback: () => 1 });
        if (attempt > 1) return { rate };
        guard.resetCircuit('rates');
        throw new TransientError('refused');
      }),
    ]);
    guard.forceOpen('rates');
    await enqueue(app, 'orders', 'order', {}, 'order:1');
    expect(await settled(app, 'order:1')).toMatchObject({
      attempts: 2,
      result: { rate: 2 },
      degraded: undefined,
    });
  });

  it('in a step mark the operation, also when the step is replayed in a later attempt', async () => {
    let asked = 0;
    const { app, guard } = await begin([
      processorOf('orders', { effect: 'natural', retry: QUICK }, async (_job, { step, attempt }) => {
        const rate = await step('rate', () => {
          asked += 1;
          return guard.call('rates', () => 2, { fallback: () => 1 });
        });
        if (attempt > 1) return { rate };
        guard.resetCircuit('rates');
        throw new TransientError('refused');
      }),
    ]);
    guard.forceOpen('rates');
    await enqueue(app, 'orders', 'order', {}, 'order:1');
    expect(await settled(app, 'order:1')).toMatchObject({
      status: 'completed',
      attempts: 2,
      result: { rate: 1 },
      degraded: 'rates: circuit_open',
    });
    expect(await stepOf(app, 'order:1', 'rate')).toMatchObject({
      attempts: 1,
      degraded: 'rates: circuit_open',
    });
    expect(asked).toBe(1);
  });

  it('in once() mark the call, and the operation around whoever is answered with it later', async () => {
    const { app, guard } = await begin([processorOf('orders', { effect: 'natural' }, () => rate(app))]);
    const rate = (from: INestApplicationContext): Promise<number> =>
      from
        .get(IdempotencyService)
        .once('rate:today', () => guard.call('rates', () => 2, { fallback: () => 1 }));
    guard.forceOpen('rates');
    expect(await asTenant(app, 'acme', () => rate(app))).toBe(1);
    guard.resetCircuit('rates');
    await enqueue(app, 'orders', 'order', {}, 'order:1');
    expect(await settled(app, 'order:1')).toMatchObject({ result: 1, degraded: 'rates: circuit_open' });
    expect(await outcomeOf(app, 'rate:today')).toMatchObject({
      attempts: 1,
      degraded: 'rates: circuit_open',
    });
  });

  it('of the handler’s own are told with markDegraded(): in few words, the first of which stay', async () => {
    const { app, events } = await begin([
      processorOf('orders', { effect: 'keyed' }, (job, operation) => {
        if (job.name === 'plain') return 'real';
        operation.markDegraded(job.name === 'long' ? `${'no '.repeat(100)}\0` : 'no rate for today');
        operation.markDegraded('and no stock either');
        return 'stand-in';
      }),
    ]);
    await enqueue(app, 'orders', 'order', {}, 'order:1');
    await enqueue(app, 'orders', 'long', {}, 'order:2');
    await enqueue(app, 'orders', 'plain', {}, 'order:3');
    expect(await settled(app, 'order:1')).toMatchObject({
      result: 'stand-in',
      degraded: 'no rate for today',
    });
    expect((await settled(app, 'order:2')).degraded).toBe('no '.repeat(100).slice(0, 200));
    expect(await settled(app, 'order:3')).toMatchObject({ result: 'real', degraded: undefined });
    await eventually(
      () => events.filter(({ kind }) => kind === 'completed'),
      (completions) => expect(completions).toHaveLength(3),
    );
    expect(usesOf(events)).toEqual([]);
  });
});
