import type { INestApplicationContext } from '@nestjs/common';
import { type IdempotentProcessorOptions, TransientError } from 'nestjs-idempotent-jobs';
import { DependencyGuard, type DependencyOptions } from 'nestjs-idempotent-jobs/dependencies';
import { type JobEvent, JobEvents } from 'nestjs-idempotent-jobs/observe';
import { describe, expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { bullQueue, enqueue, idempotentQueue, settled } from '../support/ledger.js';
import { processorOf } from '../support/processors.js';
import { BACKENDS } from '../support/scenario.js';

const PAUSES: IdempotentProcessorOptions = { effect: 'keyed', dependency: 'gateway', pauseQueue: true };
const TWO_AT_ONCE = { concurrency: 2, lockDuration: 2_000, stalledInterval: 500 };

const ids = (count: number): string[] => Array.from({ length: count }, (_none, index) => `charge:${index}`);

describe.each(BACKENDS)('queues that pause with their dependency, on %s', (backend) => {
  const apps = useApps();

  const begin = async (options: DependencyOptions, act: () => unknown = () => 'done') => {
    const { app } = await apps.fresh(backend, {
      queues: ['charges', 'mails'],
      providers: [
        processorOf(
          'charges',
          { ...PAUSES, retry: { backoff: { baseMs: 10, capMs: 20 } } },
          act,
          TWO_AT_ONCE,
        ),
        processorOf('mails', { effect: 'keyed' }, () => 'sent'),
      ],
      jobs: { dependencies: { gateway: options } },
    });
    const events: JobEvent[] = [];
    app.get(JobEvents).subscribe((event) => {
      if (event.queue !== 'mails') events.push(event);
    });
    return { app, guard: app.get(DependencyGuard), events };
  };
  const charge = (app: INestApplicationContext, count: number): Promise<unknown> =>
    idempotentQueue(app, 'charges').enqueueMany(
      ids(count).map((operationKey) => ({ name: 'charge', payload: {}, operationKey, tenantId: 'acme' })),
    );
  const waiting = (app: INestApplicationContext, count: number): Promise<unknown> =>
    eventually(
      () => bullQueue(app, 'charges').getJobCounts('waiting', 'prioritized', 'active', 'delayed'),
      (counts) => expect(counts).toMatchObject({ waiting: count, prioritized: 0, active: 0, delayed: 0 }),
    );
  /** Time in which workers take what there is to take. */
  const workElsewhere = async (app: INestApplicationContext, round: string, mails = 20): Promise<void> => {
    for (let mail = 0; mail < mails; mail += 1) {
      await enqueue(app, 'mails', 'mail', {}, `mail:${round}:${mail}`);
      await settled(app, `mail:${round}:${mail}`);
    }
  };
  const isHeldBack = (app: INestApplicationContext): Promise<unknown> =>
    eventually(
      () => bullQueue(app, 'charges').getRateLimitTtl(),
      (ttl) => expect(ttl).toBeGreaterThan(0),
    );

  it('nothing is taken off the queue while the circuit is open, other queues go on, and all is taken at once when a person closes it', async () => {
    const { app, guard, events } = await begin({ breaker: { openMs: 100_000, maxOpenMs: 100_000 } });
    guard.forceOpen('gateway');
    await isHeldBack(app);
    await charge(app, 10);
    await waiting(app, 10);
    await workElsewhere(app, 'open');
    await waiting(app, 10);
    expect(events.filter(({ kind }) => kind === 'deferred' || kind === 'started')).toEqual([]);

    guard.forceClosed('gateway');
    const closedAt = performance.now();
    for (const key of ids(10))
      expect(await settled(app, key)).toMatchObject({ status: 'completed', attempts: 1 });
    // By itself the circuit would have stayed open for 100 s, or at least 80.
    expect(performance.now() - closedAt).toBeLessThan(80_000);
    expect(events.filter(({ kind }) => kind === 'deferred')).toEqual([]);
  });

  it('stays paused for as long as a person keeps the circuit open, however often that is its time', async () => {
    const { app, guard, events } = await begin({ breaker: { openMs: 1_000, maxOpenMs: 1_000 } });
    guard.forceOpen('gateway');
    await isHeldBack(app);
    await charge(app, 20);
    const forcedAt = performance.now();
    for (let round = 0; performance.now() - forcedAt < 4_000; round += 1)
      await workElsewhere(app, `round-${round}`, 1);
    // Each time that is over the two that look have the queue held back again; all twenty would come if nothing did.
    const times = (performance.now() - forcedAt) / 1_000 + 2;
    expect(events.filter(({ kind }) => kind === 'deferred').length).toBeLessThan(10 * times);
    expect(events.filter(({ kind }) => kind === 'started')).toEqual([]);
    guard.resetCircuit('gateway');
    for (const key of ids(20))
      expect(await settled(app, key)).toMatchObject({ status: 'completed', attempts: 1 });
  });

  it('an outage pauses it by itself, a probe at a time looks, and it goes on by itself', async () => {
    let isDown = true;
    const { app, guard, events } = await begin(
      {
        breaker: { minimumCalls: 4, openMs: 800, maxOpenMs: 800, successes: 1 },
        retryBudget: false,
      },
      () => {
        if (isDown) throw new TransientError('refused');
      },
    );
    const opened = (): number =>
      events.filter((event) => event.kind === 'circuit_changed' && event.state === 'open').length;
    await charge(app, 30);
    // Opened, and again by the first probe.
    await eventually(opened, (times) => expect(times).toBeGreaterThanOrEqual(2));
    isDown = false;
    for (const key of ids(30)) expect(await settled(app, key)).toMatchObject({ status: 'completed' });
    expect(guard.stateOf('gateway').circuit).toBe('closed');
    // Those under way when it opened, and the one beside each probe: not the whole queue each time.
    expect(events.filter(({ kind }) => kind === 'deferred').length).toBeLessThan(30 * opened());
  });
});
