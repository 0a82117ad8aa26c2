import type { Job } from 'bullmq';
import type { INestApplicationContext } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { IsUrl } from 'class-validator';
import type { IdempotentProcessorOptions } from 'nestjs-idempotent-jobs';
import {
  DependencyGuard,
  DependencyRejectedError,
  type DependencyOptions,
} from 'nestjs-idempotent-jobs/dependencies';
import { ConfigurationError, UsageError } from 'nestjs-idempotent-jobs/errors';
import {
  Doctor,
  IdempotentJobsHealthIndicator,
  type JobEvent,
  JobEvents,
} from 'nestjs-idempotent-jobs/observe';
import { describe, expect, it, onTestFinished } from 'vitest';
import { useApps, useOneApp } from '../support/apps.js';
import { DEGRADED } from '../support/degraded.js';
import { eventually } from '../support/eventually.js';
import { idempotentQueue, lettersOf, outcomeOf, settled } from '../support/ledger.js';
import { type Handler, processorOf, Scripts } from '../support/processors.js';
import { BACKENDS, makePlace } from '../support/scenario.js';
import { rootModule } from '../support/start-app.js';

/** Opens after four failures, for longer than any test. */
const BREAKER = { minimumCalls: 4, openMs: 600_000, maxOpenMs: 600_000, successes: 1 };
const ONE: DependencyOptions = { breaker: BREAKER, retryBudget: false };
const HOOKS: Record<string, DependencyOptions> = { hooks: ONE };
const QUICK = { attempts: 2, backoff: { baseMs: 10, capMs: 20 } };
const refuse = (): never => {
  throw unavailable();
};
const unavailable = (): Error => Object.assign(new Error('The endpoint answered 503'), { status: 503 });

const perTenant = ({ tenantId }: { tenantId: string }): string => tenantId;
const perHost = ({ job }: { job: Job }): string => new URL((job.data as { url: string }).url).host;

const eventsOf = (app: INestApplicationContext): JobEvent[] => {
  const events: JobEvent[] = [];
  onTestFinished(app.get(JobEvents).subscribe((event) => events.push(event)));
  return events;
};

const sendIn = (app: INestApplicationContext, queue: string, tenantId: string, from: number, count: number) =>
  idempotentQueue(app, queue).enqueueMany(
    Array.from({ length: count }, (_, n) => ({
      name: 'hook',
      payload: { url: `https://${tenantId}.example/hook` },
      tenantId,
      operationKey: `hook:${from + n}`,
    })),
  );

describe.each(BACKENDS)('circuits by key, on %s', (backend) => {
  const apps = useApps();
  const begin = async (options: Partial<IdempotentProcessorOptions>, handler: Handler) => {
    const { app } = await apps.fresh(backend, {
      queues: ['hooks'],
      providers: [hooksOf('hooks', options, handler)],
      jobs: { dependencies: HOOKS },
    });
    const send = (tenantId: string, from: number, count: number) =>
      sendIn(app, 'hooks', tenantId, from, count);
    return { app, events: eventsOf(app), send, guard: app.get(DependencyGuard) };
  };
  const hooksOf = (queue: string, options: Partial<IdempotentProcessorOptions>, handler: Handler) =>
    processorOf(queue, { effect: 'keyed', retry: QUICK, ...options }, handler);
  /** The endpoint of acme fails. */
  const callEndpoint: Handler = (_job, { tenantId }) => {
    if (tenantId === 'acme') throw unavailable();
    return 'delivered';
  };

  // One application for all cases whose circuits have keys. Each case has tenants of its own, and a
  // dependency of its own where it looks at all keys of one.
  const scripts = new Scripts();
  const keys = new Map<string, () => string>();
  const shared = useOneApp(backend, {
    queues: ['tenant', 'host', 'hooks', 'broken', 'budgeted'],
    providers: [
      hooksOf('tenant', { dependency: { name: 'tenant', per: perTenant } }, scripts.handler),
      hooksOf('host', { dependency: { name: 'host', per: perHost } }, scripts.handler),
      hooksOf('hooks', { dependency: { name: 'hooks', per: perTenant } }, scripts.handler),
      hooksOf(
        'broken',
        { dependency: { name: 'broken', per: ({ tenantId }) => (keys.get(tenantId) as () => string)() } },
        scripts.handler,
      ),
      hooksOf('budgeted', { dependency: { name: 'budgeted', per: perTenant } }, scripts.handler),
    ],
    jobs: {
      dependencies: {
        tenant: ONE,
        host: ONE,
        hooks: ONE,
        broken: ONE,
        forced: ONE,
        few: { ...ONE, maxKeys: 3 },
        budgeted: { breaker: false, retryBudget: { ratio: 0.01, minPerSecond: 0.1 } },
      },
    },
  });
  const send = (queue: string, tenantId: string, from: number, count: number) =>
    sendIn(shared(), queue, tenantId, from, count);
  const sharedGuard = (): DependencyGuard => shared().get(DependencyGuard);

  it.each(['tenant', 'host'])(
    'the endpoint of one tenant fails, and nobody else is held back: per %s',
    async (what) => {
      const app = shared();
      const events = eventsOf(app);
      const acme = scripts.tenantWith(refuse);
      const globex = scripts.tenantWith(() => 'delivered');
      await send(what, acme, 1, 8);
      await eventually(
        () => events.filter(({ kind }) => kind === 'circuit_changed'),
        (changes) =>
          expect(changes).toMatchObject([{ dependency: what, state: 'open', tenantId: acme, queue: what }]),
      );
      await send(what, globex, 1, 10);
      for (let n = 1; n <= 10; n += 1)
        expect(await settled(app, `hook:${n}`, globex)).toMatchObject({ status: 'completed', attempts: 1 });
      await send(what, acme, 100, 1);
      await eventually(
        () =>
          events.filter(
            (event) =>
              event.kind === 'deferred' && event.operationKey === 'hook:100' && event.tenantId === acme,
          ),
        (held) => expect(held).toMatchObject([{ cause: 'circuit_open', dependency: what, tenantId: acme }]),
      );
      expect(sharedGuard().stateOf(what)).toMatchObject({
        circuit: 'open',
        keys: { known: 2, notClosed: 1 },
      });
      expect(app.get(IdempotentJobsHealthIndicator).dependency(what)).toMatchObject({
        [what]: { status: DEGRADED, keys: { known: 2, notClosed: 1 } },
      });
      expect(
        app
          .get(Doctor)
          .report()
          .findings.map(({ code }) => code),
      ).not.toContain('circuit-shared-by-tenants');
      // The key may be a tenant's own datum.
      expect(JSON.stringify(events)).not.toContain(`${acme}.example`);
    },
  );

  it('a circuit that all tenants share is named once one tenant has opened it for all', async () => {
    const { app, events, send } = await begin({ dependency: 'hooks' }, callEndpoint);
    const finding = (): unknown =>
      app
        .get(Doctor)
        .report()
        .findings.find(({ code }) => code === 'circuit-shared-by-tenants');
    await send('globex', 1, 1);
    await settled(app, 'hook:1', 'globex');
    expect(finding()).toBeUndefined();
    await send('acme', 1, 8);
    await eventually(
      () => events.filter(({ kind }) => kind === 'circuit_changed'),
      (changes) => expect(changes).toMatchObject([{ state: 'open', isOneTenantsFault: true }]),
    );
    expect(finding()).toMatchObject({
      severity: 'warning',
      fix: expect.stringContaining('per: (operation) =>') as string,
    });
  });

  it('the doctor warns of one circuit for payloads that name endpoints, before anything has failed', async () => {
    class Hook {
      @IsUrl() url!: string;
    }
    for (const [dependency, codes] of [
      ['hooks', ['circuit-shared-by-tenants']],
      [{ name: 'hooks', per: () => 'a' }, []],
    ] as const) {
      const { app } = await begin({ dependency, payload: Hook }, () => 1);
      const { findings } = app.get(Doctor).report();
      expect(
        findings.filter(({ code }) => code === 'circuit-shared-by-tenants').map(({ code }) => code),
      ).toEqual(codes);
    }
  });

  it.each([
    [
      'throws',
      () => {
        throw new Error('no such field');
      },
      /per of dependency "broken" threw.*no such field/,
    ],
    [
      'gives nothing',
      () => undefined as unknown as string,
      /must be a string of 1 to 400 characters, but is undefined/,
    ],
    ['gives an empty text', () => '', /but is a string of 0 characters/],
  ])('a key that cannot be had fails the attempt before its handler: per %s', async (_what, per, message) => {
    let runs = 0;
    const tenantId = scripts.tenantWith(() => (runs += 1));
    keys.set(tenantId, per);
    await send('broken', tenantId, 1, 1);
    expect(await settled(shared(), 'hook:1', tenantId)).toMatchObject({ status: 'dead' });
    const [letter] = await lettersOf(shared(), tenantId);
    expect(letter).toMatchObject({ reason: 'retries_exhausted', attempts: 2 });
    expect(letter?.error?.message).toMatch(message);
    expect(runs).toBe(0);
    expect(sharedGuard().stateOf('broken')).not.toHaveProperty('keys');
  });

  it('a guarded call has the circuit of its key, in a handler that of the handler’s', async () => {
    const guard = sharedGuard();
    const handler: Handler = async (_job, { tenantId }) => {
      const inside = await guard.call('hooks', () => 'part of the attempt');
      const other = await guard
        .call('hooks', () => 'another’s', { per: `${tenantId}/other` })
        .catch((e: Error) => e.name);
      return [inside, other];
    };
    const acme = scripts.tenantWith(handler);
    const globex = scripts.tenantWith(handler);
    for (let n = 0; n < 4; n += 1)
      await expect(guard.call('hooks', refuse, { per: `${acme}/other` })).rejects.toThrow('503');
    await expect(guard.call('hooks', () => 1, { per: `${acme}/other` })).rejects.toThrow(
      DependencyRejectedError,
    );
    expect(await guard.call('hooks', () => 1, { per: `${globex}/other` })).toBe(1);
    expect(await guard.call('hooks', () => 1)).toBe(1);
    await send('hooks', globex, 1, 1);
    expect(await settled(shared(), 'hook:1', globex)).toMatchObject({
      result: ['part of the attempt', 'another’s'],
    });
    await expect(guard.call('hooks', () => 1, { per: '' })).rejects.toThrow(UsageError);
  });

  it.each([
    ['a guarded call in the handler', async (guard: DependencyGuard) => guard.call('hooks', refuse)],
    [
      'a guarded call in a guarded call of the key',
      async (guard: DependencyGuard, per: string) =>
        guard.call('hooks', () => guard.call('hooks', refuse), { per }),
    ],
  ])('what fails inside of what a key let through opens its circuit: %s', async (_what, call) => {
    const events = eventsOf(shared());
    const acme = scripts.tenantWith((_job, { tenantId }) => call(sharedGuard(), tenantId));
    const globex = scripts.tenantWith(() => 'delivered');
    await send('hooks', acme, 1, 8);
    await eventually(
      () => events.filter(({ kind }) => kind === 'circuit_changed'),
      (changes) => expect(changes).toMatchObject([{ state: 'open', tenantId: acme }]),
    );
    await send('hooks', globex, 1, 1);
    expect(await settled(shared(), 'hook:1', globex)).toMatchObject({ status: 'completed' });
  });

  it('a key whose circuit is open does not pause the queue of all', async () => {
    const { app, send, guard, events } = await begin(
      { dependency: 'hooks', pauseQueue: true },
      (_job, { tenantId }) =>
        guard.call('hooks', tenantId === 'acme' ? refuse : () => 'delivered', { per: tenantId }),
    );
    await send('acme', 1, 8);
    await eventually(
      () => events.filter(({ kind }) => kind === 'circuit_changed'),
      (changes) => expect(changes).toMatchObject([{ state: 'open', tenantId: 'acme' }]),
    );
    await send('globex', 1, 10);
    for (let n = 1; n <= 10; n += 1)
      expect(await settled(app, `hook:${n}`, 'globex')).toMatchObject({ status: 'completed', attempts: 1 });
  });

  it('forced by a person, all keys are, known and to come', async () => {
    const guard = sharedGuard();
    const call = (per: string): Promise<number> => guard.call('forced', () => 1, { per });
    expect(await call('acme')).toBe(1);
    guard.forceOpen('forced');
    for (const key of ['acme', 'globex']) await expect(call(key)).rejects.toThrow(DependencyRejectedError);
    guard.resetCircuit('forced');
    for (const key of ['acme', 'globex', 'initech']) expect(await call(key)).toBe(1);
  });

  it('of more keys than are remembered, an open circuit stays while others can go', async () => {
    const guard = sharedGuard();
    const call = (per: string, fn = (): number => 1): Promise<number> => guard.call('few', fn, { per });
    for (let n = 0; n < 4; n += 1) await call('acme', refuse).catch(() => undefined);
    for (let n = 0; n < 50; n += 1) await call(`tenant-${n}`);
    expect(guard.stateOf('few')).toMatchObject({ circuit: 'open', keys: { known: 3, notClosed: 1 } });
    await expect(call('acme')).rejects.toThrow(DependencyRejectedError);
  });

  it('a retry budget that one key has spent is not spent for others', async () => {
    const events = eventsOf(shared());
    const acme = scripts.tenantWith(refuse);
    const globex = scripts.tenantWith((_job, { attempt }) => {
      if (attempt === 1) throw unavailable();
    });
    await send('budgeted', acme, 1, 6);
    await eventually(
      () => events.filter(({ kind }) => kind === 'retry_budget_denied'),
      (denied) => expect(denied.length).toBeGreaterThan(0),
    );
    await send('budgeted', globex, 1, 1);
    expect(await settled(shared(), 'hook:1', globex)).toMatchObject({ status: 'completed', attempts: 2 });
    expect(await outcomeOf(shared(), 'hook:1', acme)).toBeDefined();
  });

  it('a key with a queue that pauses for all is refused at boot, and so is a dependency without a way to its key', async () => {
    const place = await makePlace(backend);
    for (const [options, message] of [
      [
        { dependency: { name: 'hooks', per: () => 'a' }, pauseQueue: true },
        /pauseQueue.*left out where dependency has a "per"/,
      ],
      [{ dependency: { name: 'hooks' } }, /dependency.*\{ name, per: \(operation\) => key \}/],
      [{ dependency: { name: 'nobody', per: () => 'a' } }, /dependency.*one of forRoot/],
    ] as const) {
      const hooks = processorOf('hooks', options as unknown as IdempotentProcessorOptions, () => 1);
      const root = rootModule(place, {
        queues: ['hooks'],
        providers: [hooks],
        jobs: { dependencies: HOOKS },
      });
      const booting = NestFactory.createApplicationContext(root, { logger: false, abortOnError: false });
      await expect(booting).rejects.toThrow(ConfigurationError);
      await expect(booting).rejects.toThrow(message);
    }
  });
});
