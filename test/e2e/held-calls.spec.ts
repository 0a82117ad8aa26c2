import { setTimeout as sleep } from 'node:timers/promises';
import { WorkerHost } from '@nestjs/bullmq';
import {
  type CanActivate,
  type INestApplicationContext,
  Injectable,
  type Provider,
  UseGuards,
} from '@nestjs/common';
import {
  IdempotentProcessor,
  type IdempotentProcessorOptions,
  InDoubtError,
  type Outcome,
  PermanentError,
  Reconciliation,
  TransientError,
} from 'nestjs-idempotent-jobs';
import { IdempotencyService } from 'nestjs-idempotent-jobs/calls';
import { type DependencyOptions, DependencyGuard } from 'nestjs-idempotent-jobs/dependencies';
import { JobEvents } from 'nestjs-idempotent-jobs/observe';
import { beforeEach, describe, expect, it } from 'vitest';
import { useApps, useOneApp } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { dataSourceOf, enqueue, lettersOf, outcomeOf, settled } from '../support/ledger.js';
import { Gate, type Handler, processorOf, reconcilingProcessorOf, Scripts } from '../support/processors.js';
import { BACKENDS } from '../support/scenario.js';

/*
 * Guarded calls in the middle of handlers, held back when something else has been done already. What was sent must not be
 * sent again because of what was not.
 */

const QUICK: DependencyOptions = { breaker: { openMs: 100 } };
const RETRY = { attempts: 3, backoff: { baseMs: 10, capMs: 20 } };

describe.each(BACKENDS)('calls that are held back, on %s', (backend) => {
  const apps = useApps();

  // One application for all cases that need no other dependencies. Each has a tenant of its own.
  const scripts = new Scripts();
  const QUEUES = {
    unrepeatable: { effect: 'unrepeatable' },
    natural: { effect: 'natural', retry: RETRY },
    keyed: { effect: 'keyed', retry: RETRY },
    'through-gateway': { effect: 'natural', dependency: 'gateway' },
    'brief-transactional': { effect: 'transactional', timeBudgetMs: 500 },
    'brief-natural': { effect: 'natural', timeBudgetMs: 500 },
  } satisfies Record<string, IdempotentProcessorOptions>;
  const shared = useOneApp(backend, {
    queues: [...Object.keys(QUEUES), 'reconciled'],
    providers: [
      ...Object.entries(QUEUES).map(([queue, options]) => processorOf(queue, options, scripts.handler)),
      reconcilingProcessorOf(
        'reconciled',
        { effect: 'reconciled', reconcile: { afterMs: [50] } },
        scripts.handler,
        () => Reconciliation.applied('charged'),
      ),
    ],
    jobs: { dependencies: { gateway: QUICK, mail: QUICK } },
  });
  let guard: DependencyGuard;
  beforeEach(() => {
    guard = shared().get(DependencyGuard);
    guard.resetCircuit('gateway');
    guard.forceOpen('mail');
  });
  /** Orders something for a tenant whose orders are handled so, and answers with the tenant. */
  const order = async (
    queue: keyof typeof QUEUES | 'reconciled',
    handler: Handler,
    name = 'order',
  ): Promise<string> => {
    const tenantId = scripts.tenantWith(handler);
    await enqueue(shared(), queue, name, {}, 'order:1', tenantId);
    return tenantId;
  };
  const ended = (tenantId: string): Promise<Outcome> => settled(shared(), 'order:1', tenantId);

  /** An application of its own, with dependency `mail` forced open. */
  const begin = async (
    provider: Provider | undefined,
    dependencies: Record<string, DependencyOptions>,
    others: Provider[] = [],
  ): Promise<{ app: INestApplicationContext; guard: DependencyGuard }> => {
    const providers = provider === undefined ? [] : [provider, ...others];
    const { app } = await apps.fresh(backend, { queues: ['orders'], providers, jobs: { dependencies } });
    const guard = app.get(DependencyGuard);
    guard.forceOpen('mail');
    return { app, guard };
  };

  it('unrepeatable: a call after one that was sent leaves a doubt, and repeats nothing', async () => {
    let charges = 0;
    const tenant = await order('unrepeatable', async () => {
      await guard.call('gateway', () => (charges += 1));
      await guard.call('mail', () => undefined);
    });
    expect(await ended(tenant)).toMatchObject({ status: 'in_doubt', attempts: 1 });
    expect(charges).toBe(1);
  });

  it('unrepeatable: a call beside one that is under way leaves a doubt, too', async () => {
    let charges = 0;
    const tenant = await order('unrepeatable', () =>
      Promise.all([
        guard.call('gateway', async () => {
          await sleep(50);
          charges += 1;
        }),
        guard.call('mail', () => undefined),
      ]),
    );
    expect((await ended(tenant)).status).toBe('in_doubt');
    await eventually(
      () => charges,
      (made) => expect(made).toBe(1),
    );
  });

  it('reconciled: the service is asked about what was sent', async () => {
    let charges = 0;
    const tenant = await order('reconciled', async () => {
      await guard.call('gateway', () => (charges += 1));
      await guard.call('mail', () => undefined);
    });
    expect(await ended(tenant)).toMatchObject({ status: 'completed', result: 'charged' });
    expect(charges).toBe(1);
  });

  it('transactional: it is put off without an attempt, also where an earlier attempt could not be repeated', async () => {
    // Its next attempt is the other processor's.
    const slow = { attempts: 3, backoff: { baseMs: 8_000, capMs: 8_000, jitter: 'equal' as const } };
    const before = processorOf('orders', { effect: 'unrepeatable', retry: slow }, () => {
      throw new TransientError('refused');
    });
    const { app: old, place } = await apps.fresh(backend, { queues: ['orders'], providers: [before] });
    await enqueue(old, 'orders', 'order', {}, 'order:1');
    await eventually(
      () => outcomeOf(old, 'order:1'),
      (outcome) => expect(outcome).toMatchObject({ status: 'retrying', attempts: 1 }),
    );
    await apps.close(old);

    let runs = 0;
    let guardOfLater!: DependencyGuard;
    const after = processorOf('orders', { effect: 'transactional', retry: RETRY }, async () => {
      runs += 1;
      await guardOfLater.call('gateway', () => undefined);
      return guardOfLater.call('mail', () => 'sent');
    });
    const app = await apps.beside(place, {
      queues: ['orders'],
      providers: [after],
      jobs: { dependencies: { gateway: QUICK, mail: QUICK } },
    });
    guardOfLater = app.get(DependencyGuard);
    guardOfLater.forceOpen('mail');
    await eventually(
      () => runs,
      (made) => expect(made).toBeGreaterThan(RETRY.attempts),
    );
    expect(await outcomeOf(app, 'order:1')).toMatchObject({ status: 'retrying', attempts: 1, failures: 1 });
    guardOfLater.resetCircuit('mail');
    expect(await settled(app, 'order:1')).toMatchObject({ status: 'completed', attempts: 2, failures: 1 });
    expect(await lettersOf(app)).toEqual([]);
  });

  it('natural: it is put off without an attempt, whatever was sent before, and completes', async () => {
    let reads = 0;
    const tenant = await order('natural', async () => {
      await guard.call('gateway', () => (reads += 1));
      return guard.call('mail', () => 'sent');
    });
    await eventually(
      () => reads,
      (made) => expect(made).toBeGreaterThan(RETRY.attempts),
    );
    guard.resetCircuit('mail');
    expect(await ended(tenant)).toMatchObject({
      status: 'completed',
      attempts: 1,
      failures: 0,
      result: 'sent',
    });
  });

  it('what a handler says of its effect goes before the hold beneath it', async () => {
    const say: Handler = (job) =>
      guard
        .call('mail', () => undefined)
        .catch((cause: unknown) => {
          const said =
            job.name === 'never' ? new PermanentError('no') : new InDoubtError('half of it is done');
          throw Object.assign(said, { cause });
        });
    const never = await order('unrepeatable', say, 'never');
    const half = await order('unrepeatable', say, 'half');
    expect((await ended(never)).status).toBe('dead');
    expect((await ended(half)).status).toBe('in_doubt');
  });

  it.each(['transactional', 'natural'] as const)(
    '%s: the time budget ends it, although no attempt was ever spent',
    async (effect) => {
      const tenant = await order(`brief-${effect}`, () => guard.call('mail', () => undefined));
      expect((await ended(tenant)).status).toBe('dead');
      const [letter] = await lettersOf(shared(), tenant);
      expect(['deferred_too_long', 'time_budget_exceeded']).toContain(letter?.reason);
    },
  );

  it('keyed: a fallback does not stand in for a call that an earlier attempt may have made', async () => {
    const done: string[] = [];
    let guard!: DependencyGuard;
    const processor = processorOf('orders', { effect: 'keyed', retry: RETRY }, () =>
      guard.call(
        'mail',
        () => {
          done.push('mail');
          return new Promise(() => undefined);
        },
        { timeoutMs: 50, fallback: () => done.push('relay') },
      ),
    );
    const { app } = await apps.fresh(backend, {
      queues: ['orders'],
      providers: [processor],
      jobs: { dependencies: { mail: { breaker: { minimumCalls: 1 } } } },
    });
    guard = app.get(DependencyGuard);
    let holds = 0;
    app.get(JobEvents).subscribe((event) => {
      if (event.kind === 'deferred' && event.cause === 'circuit_open') holds += 1;
    });
    await enqueue(app, 'orders', 'order', {}, 'order:1');
    await eventually(
      () => holds,
      (many) => expect(many).toBeGreaterThan(0),
    );
    expect(done).toEqual(['mail']);
    expect(await outcomeOf(app, 'order:1')).toMatchObject({ status: 'retrying', attempts: 1 });
  });

  it('a Nest guard whose call is held burns no attempt', async () => {
    @Injectable()
    class AskFirst implements CanActivate {
      constructor(private readonly guard: DependencyGuard) {}

      canActivate(): Promise<boolean> {
        return this.guard.call('mail', () => true);
      }
    }
    @UseGuards(AskFirst)
    @IdempotentProcessor('orders', { effect: 'natural', retry: RETRY })
    class OrderProcessor extends WorkerHost {
      async process(): Promise<string> {
        return 'done';
      }
    }
    const { app, guard } = await begin(OrderProcessor, { mail: QUICK }, [AskFirst]);
    let holds = 0;
    app.get(JobEvents).subscribe((event) => {
      if (event.kind === 'deferred' && event.cause === 'circuit_open') holds += 1;
    });
    await enqueue(app, 'orders', 'order', {}, 'order:1');
    await eventually(
      () => holds,
      (many) => expect(many).toBeGreaterThan(RETRY.attempts),
    );
    guard.resetCircuit('mail');
    expect(await settled(app, 'order:1')).toMatchObject({ status: 'completed', attempts: 1, failures: 0 });
  });

  it('once(): the caller is told, and the row is not kept for ever', async () => {
    const { app, guard } = await begin(undefined, { mail: {} });
    const call = app
      .get(IdempotencyService)
      .once('mail:1', () => guard.call('mail', () => 1), { tenantId: 'acme' });
    await expect(call).rejects.toMatchObject({ code: 'DEPENDENCY_REJECTED' });
    const [row] = await dataSourceOf(app).query<{ expires_at: Date | null }[]>(
      "SELECT expires_at FROM job_outcomes WHERE operation_key = 'mail:1'",
    );
    expect(row?.expires_at).not.toBeNull();
    guard.resetCircuit('mail');
    const again = app
      .get(IdempotencyService)
      .once('mail:1', () => guard.call('mail', () => 1), { tenantId: 'acme' });
    expect(await again).toBe(1);
  });

  it('each dependency hears only of its own failures, and reads them by its own rules', async () => {
    let sent = 0;
    let guard!: DependencyGuard;
    const processor = processorOf('orders', { effect: 'unrepeatable', dependency: 'gateway' }, () =>
      guard.call('mail', () => {
        sent += 1;
        throw Object.assign(new Error('mail'), { status: 500 });
      }),
    );
    const place = await begin(processor, {
      // By its rules a 500 did not happen: nobody may read mail's that way.
      gateway: { breaker: { minimumCalls: 1 }, classify: () => 'transient' },
      mail: { breaker: { minimumCalls: 1 } },
    });
    guard = place.guard;
    guard.resetCircuit('mail');
    await enqueue(place.app, 'orders', 'order', {}, 'order:1');
    expect((await settled(place.app, 'order:1')).status).toBe('in_doubt');
    expect(sent).toBe(1);
    expect(guard.stateOf('mail').circuit).toBe('open');
    expect(guard.stateOf('gateway').circuit).toBe('closed');
  });

  it('a call that its attempt outruns opens the circuit', async () => {
    let guard!: DependencyGuard;
    const processor = processorOf(
      'orders',
      { effect: 'natural', timeoutMs: 100, retry: { ...RETRY, attempts: 20 } },
      () => guard.call('gateway', () => new Promise(() => undefined)),
    );
    const place = await begin(processor, {
      mail: QUICK,
      gateway: { timeoutMs: 100, retryBudget: false, breaker: { minimumCalls: 4 } },
    });
    guard = place.guard;
    await enqueue(place.app, 'orders', 'order', {}, 'order:1');
    await eventually(
      () => guard.stateOf('gateway').circuit,
      (circuit) => expect(circuit).toBe('open'),
    );
  });

  it('what still calls after its handler has ended is not let through as a part of it', async () => {
    let arrive!: (call: Promise<unknown>) => void;
    const late = new Promise<unknown>((resolve) => (arrive = resolve));
    const gate = new Gate();
    const tenant = await order('through-gateway', () => {
      void gate
        .pass()
        .then(() => arrive(guard.call('gateway', () => 'through').catch((error: unknown) => error)));
    });
    await ended(tenant);
    guard.forceOpen('gateway');
    gate.open();
    expect(await late).toMatchObject({ code: 'DEPENDENCY_REJECTED' });
  });

  it('a failure that says that nothing happened is tried again, with what was sent before it', async () => {
    let charges = 0;
    const tenant = await order('keyed', async (_job, { attempt }) => {
      await guard.call('gateway', () => (charges += 1));
      if (attempt === 1) throw new TransientError('not this time');
    });
    expect(await ended(tenant)).toMatchObject({ status: 'completed', attempts: 2 });
    expect(charges).toBe(2);
  });
});
