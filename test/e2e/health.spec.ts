import { PermanentError, TransientError } from 'nestjs-idempotent-jobs';
import { DependencyGuard } from 'nestjs-idempotent-jobs/dependencies';
import { IdempotentJobsHealthIndicator } from 'nestjs-idempotent-jobs/observe';
import { describe, expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
import { DEGRADED } from '../support/degraded.js';
import { eventually } from '../support/eventually.js';
import { bullQueue, enqueue, settled } from '../support/ledger.js';
import { processorOf } from '../support/processors.js';
import { detourOf } from '../support/quiet-line.js';
import { BACKENDS, dataSourceOf, makePlace } from '../support/scenario.js';

describe.each(BACKENDS)('health, on %s', (backend) => {
  const apps = useApps();
  const fine = processorOf('charges', { effect: 'natural' }, () => 'done');

  it('all is up when jobs run', async () => {
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [fine] });
    const health = app.get(IdempotentJobsHealthIndicator);
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    await settled(app, 'charge:1');
    expect(await health.ledger()).toMatchObject({ ledger: { status: 'up', dispatchLagMs: 0 } });
    expect(await health.queue('charges')).toMatchObject({
      charges: { status: 'up', backend, worker: 'running', deadLetters: 0, inDoubt: 0 },
    });
  });

  it('dead letters and operations in doubt degrade their queue, from the threshold on', async () => {
    const processor = processorOf('charges', {}, (job) => {
      throw (job.data as { doubt: boolean }).doubt ? new Error('no answer') : new PermanentError('no');
    });
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor] });
    const health = app.get(IdempotentJobsHealthIndicator);
    await enqueue(app, 'charges', 'charge', { doubt: false }, 'charge:1');
    await enqueue(app, 'charges', 'charge', { doubt: true }, 'charge:2');
    await settled(app, 'charge:1');
    await settled(app, 'charge:2');
    expect(await health.queue('charges')).toMatchObject({
      charges: { status: DEGRADED, deadLetters: 2, inDoubt: 1 },
    });
    expect(await health.queue('charges', { maxDeadLetters: 2, maxInDoubt: 1 })).toMatchObject({
      charges: { status: 'up' },
    });
  });

  it('a job that waits too long degrades its queue; the oldest one counts', async () => {
    const { app } = await apps.fresh(backend, { queues: ['charges'] });
    const health = app.get(IdempotentJobsHealthIndicator);
    await bullQueue(app, 'charges').add('first', {}, { timestamp: Date.now() - 120_000 });
    await bullQueue(app, 'charges').add('second', {});
    const report = await health.queue('charges');
    expect(report).toMatchObject({ charges: { status: DEGRADED, worker: 'none' } });
    expect(
      (report['charges'] as unknown as { oldestWaitingMs: number }).oldestWaitingMs,
    ).toBeGreaterThanOrEqual(119_000);
    expect(await health.queue('charges', { maxWaitMs: 600_000 })).toMatchObject({
      charges: { status: 'up' },
    });
  });

  it('operations that nobody dispatches degrade the ledger', async () => {
    const { app } = await apps.fresh(backend, {
      queues: ['charges'],
      jobs: { dispatch: { enabled: false } },
    });
    const health = app.get(IdempotentJobsHealthIndicator);
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    await eventually(
      () => health.ledger({ maxDispatchLagMs: 50 }),
      (report) => expect(report).toMatchObject({ ledger: { status: DEGRADED } }),
    );
    expect(await health.ledger()).toMatchObject({ ledger: { status: 'up' } });
  });

  it('operations whose queue takes nothing degrade the ledger, although they are tried again and again', async () => {
    const { app } = await apps.fresh(backend, { queues: ['charges'] });
    const health = app.get(IdempotentJobsHealthIndicator);
    bullQueue(app, 'charges').addBulk = () => Promise.reject(new Error('no room'));
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    await eventually(
      () => health.ledger({ maxDispatchLagMs: 300 }),
      (report) => expect(report).toMatchObject({ ledger: { status: DEGRADED } }),
    );
  });

  it.each(['ledger', 'queue'] as const)(
    'the %s whose server is silent is down within the timeout, and up when it answers again',
    async (part) => {
      const { place, line } = await detourOf(await makePlace(backend), part);
      const app = await apps.beside(place, { queues: ['charges'] });
      const health = app.get(IdempotentJobsHealthIndicator);
      const [key, ask] =
        part === 'ledger'
          ? ['ledger', () => health.ledger({ timeoutMs: 300 })]
          : ['charges', () => health.queue('charges', { timeoutMs: 300 })];
      const isUp = (report: object): void => expect(report).toMatchObject({ [key]: { status: 'up' } });
      try {
        await eventually(ask, isUp);
        line.silence();
        expect(await ask()).toMatchObject({
          [key]: { status: 'down', message: expect.stringContaining('did not answer within 300 ms') },
        });
        line.speak();
        await eventually(ask, isUp);
      } finally {
        line.speak();
        await apps.close(app);
        await line.end();
      }
    },
  );

  it('a dependency is degraded while its circuit is open, and never down', async () => {
    const jobs = { dependencies: { gateway: {} } };
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [fine], jobs });
    const health = app.get(IdempotentJobsHealthIndicator);
    const guard = app.get(DependencyGuard);
    const facts = { active: 0, isBudgetSpent: false };
    expect(health.dependency('gateway')).toEqual({
      gateway: { status: 'up', circuit: 'closed', retryAfterMs: 0, ...facts },
    });
    guard.forceOpen('gateway');
    expect(health.dependency('gateway')).toEqual({
      gateway: {
        status: DEGRADED,
        circuit: 'forced_open',
        retryAfterMs: 30_000,
        ...facts,
        message: 'its circuit is forced_open',
      },
    });
    guard.forceClosed('gateway');
    expect(health.dependency('gateway')).toMatchObject({ gateway: { status: 'up' } });
    expect(health.dependency('gatway')).toEqual({
      gatway: { status: 'down', message: 'dependency "gatway" is not declared' },
    });
  });

  it('a dependency that gets too many retries is degraded', async () => {
    const jobs = { dependencies: { gateway: { retryBudget: { ratio: 0, minPerSecond: 0 } } } };
    const fails = processorOf(
      'charges',
      { effect: 'natural', dependency: 'gateway', retry: { backoff: { baseMs: 1 } } },
      () => {
        throw new TransientError('refused');
      },
    );
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [fails], jobs });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    await eventually(
      () => app.get(IdempotentJobsHealthIndicator).dependency('gateway'),
      (report) =>
        expect(report).toMatchObject({
          gateway: { status: DEGRADED, circuit: 'closed', isBudgetSpent: true },
        }),
    );
  });

  it('a schema that is not there, a stopped worker and an unknown queue are down', async () => {
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [fine] });
    const health = app.get(IdempotentJobsHealthIndicator);
    await app.get<{ worker: { close(): Promise<void> } }>(fine).worker.close();
    expect(await health.queue('charges')).toMatchObject({ charges: { status: 'down', worker: 'stopped' } });
    expect(await health.queue('refunds')).toMatchObject({ refunds: { status: 'down' } });
    await dataSourceOf(app).query('DROP TABLE idempotent_jobs_schema');
    expect(await health.ledger()).toMatchObject({ ledger: { status: 'down' } });
  });
});
