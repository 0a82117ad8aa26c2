import { Processor, WorkerHost } from '@nestjs/bullmq';
import { Controller, Inject, Injectable, Scope, type Type } from '@nestjs/common';
import { PermanentError, TenantContext } from 'nestjs-idempotent-jobs';
import { type DeadLetterMessage, OnDeadLetter } from 'nestjs-idempotent-jobs/dead-letters';
import { JobEvents } from 'nestjs-idempotent-jobs/observe';
import { prometheusMetrics } from 'nestjs-idempotent-jobs/prometheus';
import { Registry } from 'prom-client';
import { describe, expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { bullQueue, enqueue, lettersOf } from '../support/ledger.js';
import { Gate, processorOf } from '../support/processors.js';
import { ANY_BACKEND, BACKENDS, dataSourceOf, makePlace } from '../support/scenario.js';
import { useProcesses } from '../support/processes.js';

type Told = [handler: string, letter: DeadLetterMessage, tenant: string | undefined];

const failing = (queue: string): Type =>
  processorOf(queue, { effect: 'keyed' }, () => {
    throw new PermanentError('no such account');
  });

/** Tells what it was told, and in which tenant's frame. */
function alertsOf(told: Told[], queue?: string): Type {
  @Injectable()
  class Alerts {
    @Inject()
    private readonly tenants!: TenantContext;

    @OnDeadLetter(queue)
    page(letter: DeadLetterMessage): void {
      told.push([queue ?? 'all', letter, this.tenants.current]);
    }
  }
  return Alerts;
}

const keysOf = (told: readonly Told[]): string[] =>
  told.map(([, letter]) => String(letter.operationKey)).toSorted();

describe.each(BACKENDS)('@OnDeadLetter, on %s', (backend) => {
  const workers = useProcesses();
  const apps = useApps();

  it('is told of each dead letter of its queue, in the frame of its tenant', async () => {
    const told: Told[] = [];
    const { app } = await apps.fresh(backend, {
      queues: ['charges', 'receipts'],
      providers: [
        failing('charges'),
        failing('receipts'),
        alertsOf(told),
        alertsOf(told, 'charges'),
        alertsOf(told, 'receipts'),
      ],
    });
    await enqueue(app, 'charges', 'charge', { amount: 5 }, 'charge:1');
    await eventually(
      () => told,
      (received) => expect(received).toHaveLength(2),
    );
    const [letter] = await lettersOf(app);
    expect(told.map(([handler]) => handler).toSorted()).toEqual(['all', 'charges']);
    for (const [, message, tenant] of told) {
      expect(tenant).toBe('acme');
      expect(message).toMatchObject({
        letterId: letter?.id,
        reason: 'permanent_error',
        queue: 'charges',
        operationKey: 'charge:1',
        payload: { amount: 5 },
      });
    }
  });

  it('is told although the dead-letter queue has lost the message, once somebody listens', async () => {
    const told: Told[] = [];
    const dispatch = { redispatchAfterMs: 300, pollMs: 50 };
    const { app, place } = await apps.fresh(backend, {
      queues: ['charges'],
      providers: [failing('charges')],
      jobs: { dispatch },
    });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    await eventually(
      () => lettersOf(app),
      (letters) => expect(letters).toMatchObject([{ dispatch_due_at: null }]),
    );
    await bullQueue(app, 'charges-dlq').obliterate({ force: true });
    await apps.beside(place, { queues: ['charges'], providers: [alertsOf(told)], jobs: { dispatch } });
    await eventually(
      () => told,
      (received) => expect(received).toHaveLength(1),
    );
    // Told, it is put there no more.
    await eventually(
      () => lettersOf(app),
      (letters) => expect(letters).toMatchObject([{ dispatch_due_at: null, notified_at: expect.any(Date) }]),
    );
  });

  it('is told again of an open letter whose handler has failed for longer than BullMQ tries', async () => {
    const told: Told[] = [];
    const { app } = await apps.fresh(backend, {
      queues: ['charges'],
      providers: [failing('charges'), alertsOf(told)],
      jobs: { dispatch: { redispatchAfterMs: 300, pollMs: 50 } },
    });
    const dead = bullQueue(app, 'charges-dlq');
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    await eventually(
      () => told,
      (received) => expect(received).toHaveLength(1),
    );
    // As if the handler had not heard of it, and BullMQ had given up.
    await eventually(
      () => dead.getCompletedCount(),
      (completed) => expect(completed).toBe(1),
    );
    await dataSourceOf(app).query(
      `UPDATE dead_letters SET notified_at = NULL, dispatch_due_at = clock_timestamp()`,
    );
    await eventually(
      () => told,
      (received) => expect(received).toHaveLength(2),
    );
  });

  it('is told of a letter without a tenant outside of any frame', async () => {
    const told: Told[] = [];
    const { app } = await apps.fresh(backend, {
      queues: ['charges'],
      providers: [failing('charges'), alertsOf(told)],
    });
    await bullQueue(app, 'charges').add('charge', { amount: 1 });
    await eventually(
      () => told,
      (received) => expect(received).toMatchObject([['all', { reason: 'identity_missing' }, undefined]]),
    );
  });

  it('is told of letters that were written while nobody listened, from a dead-letter queue of any name', async () => {
    const told: Told[] = [];
    const queues = [{ name: 'charges', deadLetterQueue: 'the-dead' }];
    const { app, place } = await apps.fresh(backend, { queues, providers: [failing('charges')] });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    await eventually(
      () => lettersOf(app),
      (letters) => expect(letters).toMatchObject([{ dispatch_due_at: null }]),
    );
    await apps.close(app);
    await apps.beside(place, { queues, providers: [alertsOf(told, 'charges')] });
    await eventually(
      () => keysOf(told),
      (keys) => expect(keys).toEqual(['charge:1']),
    );
  });

  it('is told again of a letter whose process died while it was being told', async () => {
    const place = await makePlace(backend);
    const told: Told[] = [];
    const worker = await workers.start({
      place,
      effect: 'keyed',
      gateway: '',
      run: '',
      leaseMs: 2000,
      act: 'bury and hold',
    });
    const producer = await apps.beside(place, {
      queues: ['charges'],
      jobs: { dispatch: { enabled: false } },
    });
    await enqueue(producer, 'charges', 'charge', {}, 'charge:1');
    await worker.reached('told');
    await worker.end();
    await apps.beside(place, { queues: ['charges'], providers: [alertsOf(told)] });
    await eventually(
      () => keysOf(told),
      (keys) => expect(keys).toEqual(['charge:1']),
    );
  });

  it('is told again when it throws; handlers that were reached are left alone', async () => {
    const calls: string[] = [];
    class Alerts {
      @OnDeadLetter()
      page(): void {
        calls.push('page');
        if (calls.filter((call) => call === 'page').length === 1) throw new Error('the pager is down');
      }

      @OnDeadLetter('charges')
      audit(): Promise<void> {
        calls.push('audit');
        return Promise.resolve();
      }
    }
    const { app } = await apps.fresh(backend, {
      queues: ['charges'],
      providers: [failing('charges'), Alerts],
    });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    await eventually(
      () => bullQueue(app, 'charges-dlq').getJobCounts('completed'),
      (counts) => expect(counts).toEqual({ completed: 1 }),
    );
    expect(calls.toSorted()).toEqual(['audit', 'page', 'page']);
  });

  it('believes of a message nothing but which letter it announces', async () => {
    const told: Told[] = [];
    const { app, place } = await apps.fresh(backend, {
      queues: ['charges'],
      providers: [failing('charges')],
    });
    await enqueue(app, 'charges', 'charge', { amount: 5 }, 'charge:1');
    const dead = bullQueue(app, 'charges-dlq');
    const [job] = await eventually(
      () => dead.getJobs(['waiting']),
      (jobs) => expect(jobs).toHaveLength(1),
    );
    await dead.remove(job?.id as string);
    const forged = {
      ...(job?.data as DeadLetterMessage),
      queue: 'charges',
      tenantId: { a: 1 },
      operationKey: 'charge:9',
      payload: { amount: 1_000_000 },
      reason: 'manual',
    };
    await dead.add('dead-letter', forged);
    await apps.beside(place, { queues: ['charges'], providers: [alertsOf(told)] });
    await eventually(
      () => told,
      (received) => expect(received).not.toEqual([]),
    );
    // An application that begins to listen is told again of what was announced before.
    for (const news of told)
      expect(news).toMatchObject([
        'all',
        { tenantId: 'acme', operationKey: 'charge:1', payload: { amount: 5 }, reason: 'permanent_error' },
        'acme',
      ]);
  });

  it('is told although the message claims that it was', async () => {
    const told: Told[] = [];
    const { app, place } = await apps.fresh(backend, {
      queues: ['charges'],
      providers: [failing('charges')],
    });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    const [message] = await eventually(
      () => bullQueue(app, 'charges-dlq').getJobs(['waiting']),
      (jobs) => expect(jobs).toHaveLength(1),
    );
    await message?.updateProgress({ told: ['Alerts.page'] });
    await apps.beside(place, { queues: ['charges'], providers: [alertsOf(told)] });
    await eventually(
      () => lettersOf(app),
      (letters) => expect(letters).toMatchObject([{ notified_at: expect.any(Date) }]),
    );
    expect(keysOf(told)).toContain('charge:1');
  });

  it('is not told of a letter of a queue that only another application has, on a queue of this one', async () => {
    const told: Told[] = [];
    const dropped: string[] = [];
    const { app, place } = await apps.fresh(backend, { queues: ['charges'], providers: [alertsOf(told)] });
    app.get(JobEvents).subscribe((event) => {
      if (event.kind === 'letter_dropped') dropped.push(event.reason);
    });
    const other = await apps.beside(place, { queues: ['receipts'], providers: [failing('receipts')] });
    await enqueue(other, 'receipts', 'receipt', {}, 'receipt:1');
    const [letter] = await eventually(
      () => lettersOf(app),
      (letters) => expect(letters).toHaveLength(1),
    );
    await bullQueue(app, 'charges-dlq').add('dead-letter', { letterId: letter?.id });
    await eventually(
      () => dropped,
      (reason) => expect(reason).toEqual(['elsewhere']),
    );
    expect(told).toEqual([]);
    expect(await lettersOf(app)).toMatchObject([{ notified_at: null }]);
  });

  it('counts a job of another kind on the dead-letter queue, and fails it', async () => {
    const registry = new Registry();
    const { app } = await apps.fresh(backend, {
      queues: ['charges'],
      providers: [alertsOf([])],
      jobs: { metrics: [prometheusMetrics({ registry })] },
    });
    await bullQueue(app, 'charges-dlq').add('charge', {});
    await eventually(
      () => bullQueue(app, 'charges-dlq').getFailedCount(),
      (failed) => expect(failed).toBe(1),
    );
    expect(await registry.metrics()).toContain(
      'dead_letter_messages_dropped_total{queue="charges-dlq",reason="malformed"} 1',
    );
  });

  it('drops what announces no letter of the ledger, and counts it', async () => {
    const told: Told[] = [];
    const registry = new Registry();
    const { app } = await apps.fresh(backend, {
      queues: ['charges', 'receipts'],
      providers: [failing('charges'), failing('receipts'), alertsOf(told)],
      jobs: { metrics: [prometheusMetrics({ registry })] },
    });
    const dropped: string[] = [];
    app.get(JobEvents).subscribe((event) => {
      if (event.kind === 'letter_dropped') dropped.push(event.reason);
    });
    await enqueue(app, 'receipts', 'receipt', {}, 'receipt:1');
    await eventually(
      () => told,
      (received) => expect(received).toHaveLength(1),
    );
    const [letter] = await lettersOf(app);
    const dead = bullQueue(app, 'charges-dlq');
    const message = { queue: 'charges', tenantId: 'acme', payload: {} };
    for (const letterId of ['00000000-0000-4000-8000-000000000000', 'no id', { a: 1 }, undefined, letter?.id])
      await dead.add('dead-letter', { ...message, letterId });
    await eventually(
      () => dead.getCompletedCount(),
      (completed) => expect(completed).toBe(5),
    );
    expect(dropped.toSorted((one, other) => one.localeCompare(other))).toEqual([
      'elsewhere',
      'malformed',
      'malformed',
      'malformed',
      'unknown',
    ]);
    expect(told).toHaveLength(1);
    expect(await registry.metrics()).toContain(
      'dead_letter_messages_dropped_total{queue="charges-dlq",reason="malformed"} 3',
    );
  });

  it('shares the letters with other processes: each is told to one of them', async () => {
    const [here, there]: [Told[], Told[]] = [[], []];
    const { app, place } = await apps.fresh(backend, {
      queues: ['charges'],
      providers: [failing('charges'), alertsOf(here)],
    });
    await apps.beside(place, { queues: ['charges'], providers: [alertsOf(there)] });
    const keys = Array.from({ length: 20 }, (_, index) => `charge:${String(index).padStart(2, '0')}`);
    await Promise.all(keys.map((key) => enqueue(app, 'charges', 'charge', {}, key)));
    await eventually(
      () => keysOf([...here, ...there]),
      (told) => expect(told).toEqual(keys),
    );
  });

  it('is told once of a provider with an alias', async () => {
    const told: Told[] = [];
    const alerts = alertsOf(told);
    const { app } = await apps.fresh(backend, {
      queues: ['charges'],
      providers: [failing('charges'), alerts, { provide: 'alias', useExisting: alerts }],
    });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    await eventually(
      () => bullQueue(app, 'charges-dlq').getJobCounts('completed'),
      (counts) => expect(counts).toEqual({ completed: 1 }),
    );
    expect(keysOf(told)).toEqual(['charge:1']);
  });

  it('a shutdown waits for a handler, which still has its queues', async () => {
    const gate = new Gate();
    let finished = false;
    const place = await makePlace(backend);
    class Alerts {
      @OnDeadLetter()
      async page(): Promise<void> {
        await gate.pass();
        await bullQueue(app, 'charges').isPaused();
        finished = true;
      }
    }
    const app = await apps.beside(place, { queues: ['charges'], providers: [failing('charges'), Alerts] });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    await gate.arrival;
    const closing = apps.close(app);
    gate.open();
    await closing;
    expect(finished).toBe(true);
  });

  it('a shutdown does not wait for ever, and the letter is told again', async () => {
    const gate = new Gate();
    const told: Told[] = [];
    class Alerts {
      @OnDeadLetter()
      page(): Promise<void> {
        return gate.pass();
      }
    }
    const { app, place } = await apps.fresh(backend, {
      queues: ['charges'],
      providers: [failing('charges'), Alerts],
      jobs: { shutdown: { drainMs: 50, closeMs: 200 } },
    });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    await gate.arrival;
    await apps.close(app);
    await apps.beside(place, { queues: ['charges'], providers: [alertsOf(told)] });
    await eventually(
      () => keysOf(told),
      (keys) => expect(keys).toEqual(['charge:1']),
    );
    gate.open();
  });
});

describe('@OnDeadLetter at boot', () => {
  const apps = useApps();

  class Alerts {
    @OnDeadLetter('charges')
    page(): void {}
  }
  @Injectable({ scope: Scope.REQUEST })
  class RequestAlerts extends Alerts {}
  @Injectable({ scope: Scope.TRANSIENT })
  class TransientAlerts extends Alerts {}
  @Controller()
  class ControllerAlerts extends Alerts {}
  class LostAlerts {
    @OnDeadLetter('charges-dlq')
    page(): void {}
  }
  @Processor('charges-dlq', { autorun: false })
  class LetterProcessor extends WorkerHost {
    process(): Promise<void> {
      return Promise.resolve();
    }
  }
  class ControllerModule {}

  it.each([
    [
      'a queue that is not registered',
      { providers: [LostAlerts] },
      /"charges-dlq".*LostAlerts\.page.*not registered/,
    ],
    [
      'a processor on the same dead-letter queue',
      { providers: [Alerts, LetterProcessor] },
      /LetterProcessor processes queue "charges-dlq".*Alerts\.page/,
    ],
    ['a request-scoped provider', { providers: [RequestAlerts] }, /RequestAlerts.*request-scoped/],
    ['a transient provider', { providers: [TransientAlerts] }, /TransientAlerts.*transient/],
    [
      'a controller',
      { imports: [{ module: ControllerModule, controllers: [ControllerAlerts] }] },
      /ControllerAlerts is a controller/,
    ],
    [
      'a shared dead-letter queue of which one source is told to nobody',
      {
        queues: [
          { name: 'charges', deadLetterQueue: 'the-dead' },
          { name: 'receipts', deadLetterQueue: 'the-dead' },
        ],
        providers: [Alerts],
      },
      /"receipts" shares dead-letter queue "the-dead".*Alerts\.page/,
    ],
  ])('refuses %s', async (_title, options, message) => {
    await expect(apps.fresh(ANY_BACKEND, { queues: ['charges'], ...options })).rejects.toThrow(message);
  });
});
