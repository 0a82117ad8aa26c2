import type { Job } from 'bullmq';
import {
  type IdempotentProcessorOptions,
  InDoubtError,
  type Outcome,
  OutcomeService,
  PermanentError,
  Reconciliation,
  TransientError,
} from 'nestjs-idempotent-jobs';
import { IdempotencyService } from 'nestjs-idempotent-jobs/calls';
import {
  DependencyGuard,
  DependencyRejectedError,
  type DependencyOptions,
} from 'nestjs-idempotent-jobs/dependencies';
import { type JobEvent, JobEvents } from 'nestjs-idempotent-jobs/observe';
import { beforeAll, beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { useApps, useOneApp } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import {
  asTenant,
  bullQueue,
  deliver,
  enqueue,
  idempotentQueue,
  lettersOf,
  outcomeOf,
  settled,
  stateOf,
  stepOf,
} from '../support/ledger.js';
import {
  Gate,
  type Handler,
  identifyPlain,
  processorOf,
  reconcilingProcessorOf,
  Scripts,
} from '../support/processors.js';
import { BACKENDS, dataSourceOf } from '../support/scenario.js';

/** Opens at the first failure, for moments; one success closes it. */
const SENSITIVE = { minimumCalls: 1, openMs: 300, maxOpenMs: 300, successes: 1 };
/** As above, but only a person opens it. */
const STEADY = { ...SENSITIVE, minimumCalls: 1_000 };
const DEPENDENCIES: Record<string, DependencyOptions> = {
  gateway: { breaker: STEADY },
  sensitive: { breaker: SENSITIVE, retryBudget: false, maxConcurrent: 1 },
  narrow: { maxConcurrent: 1 },
  // One retry a second.
  thrifty: { breaker: false, retryBudget: { ratio: 0, minPerSecond: 1, windowMs: 1_000 } },
  miserly: { breaker: false, retryBudget: { ratio: 0, minPerSecond: 0 } },
};

const QUICK = { attempts: 4, backoff: { baseMs: 10, capMs: 20 } };
const ASKED_SOON = { afterMs: [50], thenEveryMs: 100, untilMs: 60_000 };

/** The queues whose processors need the gateway, or another dependency, and those whose handlers call it. */
const QUEUES = {
  unrepeatable: { effect: 'unrepeatable', dependency: 'gateway' },
  plain: { effect: 'keyed', dependency: 'gateway', identify: identifyPlain },
  brief: { effect: 'keyed', dependency: 'gateway', timeBudgetMs: 900, retry: QUICK },
  sensitive: { effect: 'keyed', dependency: 'sensitive', retry: QUICK },
  narrow: { effect: 'unrepeatable', dependency: 'narrow' },
  thrifty: { effect: 'keyed', dependency: 'thrifty', retry: QUICK },
  miserly: { effect: 'keyed', dependency: 'miserly', retry: QUICK },
  'calling-unrepeatable': { effect: 'unrepeatable', retry: QUICK },
  'calling-keyed': { effect: 'keyed' },
  'calling-transactional': { effect: 'transactional' },
  'calling-natural': { effect: 'natural', retry: QUICK },
  'brief-keyed': { effect: 'keyed', timeBudgetMs: 2000, retry: QUICK },
  'brief-transactional': { effect: 'transactional', timeBudgetMs: 2000, retry: QUICK },
} satisfies Record<string, IdempotentProcessorOptions>;

/** Those whose processors can be asked; nothing that is asked about was applied. */
const ASKED = {
  reconciled: { effect: 'reconciled', dependency: 'gateway', retry: QUICK, reconcile: ASKED_SOON },
  remembered: {
    effect: 'keyed',
    dependency: 'gateway',
    keyRetentionMs: 60_000,
    retry: { attempts: 4, backoff: { baseMs: 10, capMs: 10 } },
    reconcile: ASKED_SOON,
  },
  forgotten: {
    effect: 'keyed',
    dependency: 'gateway',
    keyRetentionMs: 200,
    retry: { attempts: 4, backoff: { baseMs: 10, capMs: 10 } },
    reconcile: ASKED_SOON,
  },
} satisfies Record<string, IdempotentProcessorOptions>;

const ids = (count: number): string[] => Array.from({ length: count }, (_none, index) => `charge:${index}`);

type EventOf<K extends JobEvent['kind']> = Extract<JobEvent, { kind: K }>;

describe.each(BACKENDS)('dependencies, on %s', (backend) => {
  const apps = useApps();

  // One application for all cases. Each has a tenant of its own.
  const scripts = new Scripts();
  const asked: { tenantId: string; attempt: number }[] = [];
  const app = useOneApp(backend, {
    queues: [...Object.keys(QUEUES), ...Object.keys(ASKED)],
    providers: [
      ...Object.entries(QUEUES).map(([queue, options]) => processorOf(queue, options, scripts.handler)),
      ...Object.entries(ASKED).map(([queue, options]) =>
        reconcilingProcessorOf(queue, options, scripts.handler, ({ tenantId, attempt }): Reconciliation => {
          asked.push({ tenantId, attempt });
          return Reconciliation.notApplied();
        }),
      ),
    ],
    jobs: { dependencies: DEPENDENCIES },
  });
  const events: JobEvent[] = [];
  let guard: DependencyGuard;
  beforeAll(() => {
    guard = app().get(DependencyGuard);
    app()
      .get(JobEvents)
      .subscribe((event) => events.push(event));
  });
  beforeEach(() => guard.resetCircuit('gateway'));

  const charge = (
    queue: keyof typeof QUEUES | keyof typeof ASKED,
    tenant: string,
    key = 'charge:1',
    name = 'charge',
  ): Promise<unknown> => enqueue(app(), queue, name, {}, key, tenant);
  const attemptsAsked = (tenant: string): number[] =>
    asked.filter(({ tenantId }) => tenantId === tenant).map(({ attempt }) => attempt);
  /** What has been told of a tenant. */
  const told = <K extends JobEvent['kind']>(tenant: string, kind: K): EventOf<K>[] =>
    events.filter((event): event is EventOf<K> => event.kind === kind && event.tenantId === tenant);
  /** Waits until it was told so often. */
  const toldOften = <K extends JobEvent['kind']>(
    tenant: string,
    kind: K,
    often: number,
  ): Promise<EventOf<K>[]> =>
    eventually(
      () => told(tenant, kind),
      (list) => expect(list.length).toBeGreaterThanOrEqual(often),
    );
  const outcome = (tenant: string, key = 'charge:1'): Promise<Outcome | undefined> =>
    outcomeOf(app(), key, tenant);
  const ended = (tenant: string, key = 'charge:1'): Promise<Outcome> => settled(app(), key, tenant);

  describe('an open circuit', () => {
    /** The circuit opens at the first attempt, which nobody answers. */
    const failsWhileItOpens: Handler = (_job, { attempt }) => {
      if (attempt > 1) return { attempt };
      guard.forceOpen('gateway');
      throw new InDoubtError('nobody answered');
    };

    it('puts a job off without an attempt, as often as it takes; then it completes with its first', async () => {
      let calls = 0;
      const tenant = scripts.tenantWith(() => void (calls += 1));
      guard.forceOpen('gateway');
      await charge('unrepeatable', tenant);
      const deferred = await toldOften(tenant, 'deferred', 2);
      expect(deferred[0]).toMatchObject({
        queue: 'unrepeatable',
        operationKey: 'charge:1',
        cause: 'circuit_open',
        dependency: 'gateway',
      });
      for (const { delayMs } of deferred) expect(delayMs).toBeLessThanOrEqual(300 * 1.25);
      expect(await outcome(tenant)).toMatchObject({ status: 'pending', attempts: 0, startedAt: undefined });
      expect(calls).toBe(0);

      guard.resetCircuit('gateway');
      expect(await ended(tenant)).toMatchObject({ status: 'completed', attempts: 1 });
      expect(told(tenant, 'started').map(({ attempt }) => attempt)).toEqual([1]);
      expect(calls).toBe(1);
    });

    it('puts off what the ledger does not know yet, and makes no row of it', async () => {
      const tenant = scripts.tenantWith(() => 'done');
      guard.forceOpen('gateway');
      await deliver(app(), 'plain', 'charge:1', {}, tenant);
      await toldOften(tenant, 'deferred', 2);
      expect(await outcome(tenant)).toBeUndefined();
      guard.resetCircuit('gateway');
      expect(await ended(tenant)).toMatchObject({ status: 'completed', attempts: 1 });
    });

    it('replays what has completed, and buries a conflict; what is dead stays dead', async () => {
      let calls = 0;
      const tenant = scripts.tenantWith((job) => {
        calls += 1;
        if ((job.data as { key: string }).key === 'charge:dead') throw new PermanentError('no such card');
        return { charged: true };
      });
      const delivered = (key: string, rest: object = {}): Promise<Job> =>
        deliver(app(), 'plain', key, rest, tenant);
      await delivered('charge:1');
      await delivered('charge:dead');
      await ended(tenant);
      await ended(tenant, 'charge:dead');
      guard.forceOpen('gateway');

      const replay = await delivered('charge:1');
      await toldOften(tenant, 'replayed', 1);
      await eventually(
        () => bullQueue(app(), 'plain').getJob(replay.id as string),
        (job) => expect(job?.returnvalue).toEqual({ charged: true }),
      );
      const conflict = await delivered('charge:1', { amount: 2 });
      const dead = await delivered('charge:dead');
      for (const job of [conflict, dead])
        await eventually(
          () => stateOf(app(), 'plain', job),
          (state) => expect(state).toBe('failed'),
        );
      const letters = await lettersOf(app(), tenant);
      expect(letters.map(({ operation_key: key, reason }) => `${key} ${reason}`)).toEqual([
        'charge:dead permanent_error',
        'charge:1 idempotency_conflict',
      ]);
      expect(await outcome(tenant)).toMatchObject({ status: 'completed' });
      expect(await outcome(tenant, 'charge:dead')).toMatchObject({ status: 'dead', attempts: 1 });
      expect(told(tenant, 'deferred')).toEqual([]);
      expect(calls).toBe(2);
    });

    it('leaves no doubt of an unrepeatable effect whose worker goes while it is put off: nothing was claimed', async () => {
      let calls = 0;
      const options = {
        queues: ['charges'],
        providers: [
          processorOf('charges', { effect: 'unrepeatable', dependency: 'gateway' }, () => void (calls += 1)),
        ],
        jobs: { dependencies: { gateway: { breaker: STEADY } } },
      };
      const { app: leaving, place } = await apps.fresh(backend, options);
      let deferred = 0;
      leaving.get(JobEvents).subscribe(({ kind }) => void (deferred += kind === 'deferred' ? 1 : 0));
      leaving.get(DependencyGuard).forceOpen('gateway');
      await enqueue(leaving, 'charges', 'charge', {}, 'charge:1');
      await eventually(
        () => deferred,
        (count) => expect(count).toBeGreaterThanOrEqual(1),
      );
      const [row] = await dataSourceOf(leaving).query<object[]>(
        'SELECT status, fencing_token, run_id FROM job_outcomes',
      );
      await apps.close(leaving);
      const heir = await apps.beside(place, options);
      expect(await settled(heir, 'charge:1')).toMatchObject({
        status: 'completed',
        attempts: 1,
        doubtSince: undefined,
      });
      expect(row).toEqual({ status: 'pending', fencing_token: '0', run_id: null });
      expect(calls).toBe(1);
    });

    it('leaves a doubt alone: nobody is asked, the plan goes on, and the question comes once it is closed', async () => {
      const tenant = scripts.tenantWith(failsWhileItOpens);
      await charge('reconciled', tenant);
      const unanswered = await toldOften(tenant, 'reconciled', 3);
      for (const event of unanswered)
        expect(event).toMatchObject({ attempt: 1, verdict: 'unknown', detail: 'circuit_open' });
      expect(await outcome(tenant)).toMatchObject({ status: 'in_doubt', attempts: 1 });
      expect(attemptsAsked(tenant)).toEqual([]);

      guard.resetCircuit('gateway');
      expect(await ended(tenant)).toMatchObject({ status: 'completed', result: { attempt: 2 }, attempts: 2 });
      expect(attemptsAsked(tenant)).toEqual([1]);
      const history = await app().get(OutcomeService).history({ tenantId: tenant, operationKey: 'charge:1' });
      const reasons = history.flatMap((entry) => (entry.kind === 'reconciled' ? [entry.reason] : []));
      expect(reasons.at(-1)).toBe('not_applied');
      expect(new Set(reasons.slice(0, -1))).toEqual(new Set(['circuit_open']));
    });

    it.each([
      { title: 'whose key the service remembers is put off', queue: 'remembered', asks: false },
      { title: 'whose key it has forgotten waits for its question', queue: 'forgotten', asks: true },
    ] as const)('a keyed operation with a doubt $title', async ({ queue, asks }) => {
      const tenant = scripts.tenantWith(failsWhileItOpens);
      await charge(queue, tenant);
      if (asks) await toldOften(tenant, 'reconciled', 2);
      else
        expect((await toldOften(tenant, 'deferred', 2)).map(({ cause }) => cause)).toEqual([
          'circuit_open',
          'circuit_open',
        ]);
      const held = await outcome(tenant);
      expect(held).toMatchObject({ status: asks ? 'in_doubt' : 'retrying', attempts: 1 });
      expect(held?.doubtSince).toBeInstanceOf(Date);
      expect(attemptsAsked(tenant)).toEqual([]);
      guard.resetCircuit('gateway');
      expect(await ended(tenant)).toMatchObject({ status: 'completed', attempts: 2 });
      expect(attemptsAsked(tenant)).toEqual(asks ? [1] : []);
    });

    it('ends in a letter when the time budget is over: one for what was tried, another for what never was', async () => {
      const tenant = scripts.tenantWith(() => {
        guard.forceOpen('gateway');
        throw new TransientError('refused');
      });
      await charge('brief', tenant, 'charge:tried');
      await toldOften(tenant, 'retrying', 1);
      await charge('brief', tenant, 'charge:never');
      expect(await ended(tenant, 'charge:tried')).toMatchObject({ status: 'dead' });
      expect(await ended(tenant, 'charge:never')).toMatchObject({ status: 'dead' });
      const letters = await lettersOf(app(), tenant);
      expect(Object.fromEntries(letters.map(({ operation_key: key, reason }) => [key, reason]))).toEqual({
        'charge:tried': 'time_budget_exceeded',
        'charge:never': 'deferred_too_long',
      });
      expect(told(tenant, 'started')).toHaveLength(1);
    });
  });

  describe('a guarded call in a handler', () => {
    it.each([
      ['lets the error pass', (call: Promise<unknown>) => call],
      [
        'throws another with it as the cause',
        (call: Promise<unknown>) =>
          call.catch((cause: unknown) => {
            throw new Error('the card was not charged', { cause });
          }),
      ],
      [
        'throws another from deep below',
        (call: Promise<unknown>) =>
          call.catch((cause: unknown) => {
            throw new TypeError('outer', { cause: new Error('inner', { cause }) });
          }),
      ],
    ])('that is held puts the operation off without an attempt, where the handler %s', async (_how, pass) => {
      let calls = 0;
      let sent = 0;
      const tenant = scripts.tenantWith(() => {
        calls += 1;
        return pass(guard.call('gateway', () => ({ sent: (sent += 1) })));
      });
      guard.forceOpen('gateway');
      await charge('calling-unrepeatable', tenant);
      const deferred = await toldOften(tenant, 'deferred', 2);
      expect(deferred[0]).toMatchObject({ cause: 'circuit_open', dependency: 'gateway' });
      await eventually(
        () => outcome(tenant),
        (held) =>
          expect(held).toMatchObject({
            status: 'retrying',
            attempts: 0,
            failures: 0,
            doubtSince: undefined,
          }),
      );
      expect(sent).toBe(0);
      guard.resetCircuit('gateway');
      expect(await ended(tenant)).toMatchObject({ status: 'completed', attempts: 1, result: { sent: 1 } });
      expect(calls).toBeGreaterThanOrEqual(3);
      expect(told(tenant, 'retrying')).toEqual([]);
      const history = await app().get(OutcomeService).history({ tenantId: tenant, operationKey: 'charge:1' });
      expect(history.map(({ kind }) => kind)).toEqual(['accepted', 'completed']);
    });

    it('that is held and caught is the handler’s to answer: the operation completes', async () => {
      const tenant = scripts.tenantWith(async () => {
        try {
          return await guard.call('gateway', () => 'charged');
        } catch (error) {
          if (error instanceof DependencyRejectedError) return { later: error.rejection.cause };
          throw error;
        }
      });
      guard.forceOpen('gateway');
      await charge('calling-keyed', tenant);
      expect(await ended(tenant)).toMatchObject({
        status: 'completed',
        attempts: 1,
        result: { later: 'circuit_open' },
        degraded: undefined,
      });
    });

    it('that is held takes back what a transactional handler has written', async () => {
      const tenant = scripts.tenantWith(async (_job, { transaction }) => {
        await transaction.query('INSERT INTO stock VALUES (1)');
        return guard.call('gateway', () => 'charged');
      });
      await dataSourceOf(app()).query('CREATE TABLE stock (item integer)');
      const rows = (): Promise<unknown[]> => dataSourceOf(app()).query('SELECT * FROM stock');
      guard.forceOpen('gateway');
      await charge('calling-transactional', tenant);
      await toldOften(tenant, 'deferred', 2);
      expect(await rows()).toEqual([]);
      expect(await outcome(tenant)).toMatchObject({ status: 'pending', attempts: 0 });
      guard.resetCircuit('gateway');
      expect(await ended(tenant)).toMatchObject({ status: 'completed', attempts: 1 });
      expect(await rows()).toHaveLength(1);
    });

    it.each(['keyed', 'transactional'] as const)(
      'that is held for longer than the time budget of a %s handler ends in a letter',
      async (effect) => {
        const tenant = scripts.tenantWith(() => guard.call('gateway', () => 'charged'));
        guard.forceOpen('gateway');
        await charge(`brief-${effect}`, tenant);
        expect(await ended(tenant)).toMatchObject({ status: 'dead' });
        const [letter] = await lettersOf(app(), tenant);
        // On a busy machine the first attempt may come too late, so that none was ever started.
        expect(['time_budget_exceeded', 'deferred_too_long']).toContain(letter?.reason);
        expect(told(tenant, 'deferred').length).toBeGreaterThanOrEqual(1);
      },
    );

    it('that is held in a step makes the operation wait; steps that have finished stay finished', async () => {
      const runs: string[] = [];
      const tenant = scripts.tenantWith(async (_job, { step }) => {
        await step('reserve', () => runs.push('reserve'));
        return step('charge', () => guard.call('gateway', () => runs.push('charge')));
      });
      guard.forceOpen('gateway');
      await charge('calling-natural', tenant, 'order:1');
      await eventually(
        () => told(tenant, 'deferred').map(({ operationKey, cause }) => `${operationKey} ${cause}`),
        (list) => {
          expect(list).toContain('order:1/charge circuit_open');
          expect(list).toContain('order:1 waiting');
        },
      );
      await eventually(
        () => stepOf(app(), 'order:1', 'charge', tenant),
        (step) => expect(step).toMatchObject({ status: 'retrying', attempts: 0 }),
      );
      expect(runs).toEqual(['reserve']);
      guard.resetCircuit('gateway');
      expect(await ended(tenant, 'order:1')).toMatchObject({ status: 'completed', attempts: 1, result: 2 });
      expect(await stepOf(app(), 'order:1', 'charge', tenant)).toMatchObject({
        status: 'completed',
        attempts: 1,
      });
      expect(runs).toEqual(['reserve', 'charge']);
    });

    it('that is held in once() puts off the job around it, and is told to any other caller', async () => {
      let sent = 0;
      const refund = (key: string): Promise<unknown> =>
        app()
          .get(IdempotencyService)
          .once(key, () => guard.call('gateway', () => (sent += 1)));
      const tenant = scripts.tenantWith(() => refund('refund:1'));
      guard.forceOpen('gateway');
      await charge('calling-natural', tenant);
      const isOwn = ({ operationKey, cause }: EventOf<'deferred'>): boolean =>
        operationKey === 'charge:1' && cause === 'circuit_open';
      await eventually(
        () => told(tenant, 'deferred').filter(isOwn),
        (list) => expect(list.length).toBeGreaterThanOrEqual(2),
      );
      await expect(asTenant(app(), tenant, () => refund('refund:2'))).rejects.toThrow(
        DependencyRejectedError,
      );
      expect(await outcome(tenant, 'refund:2')).toMatchObject({ attempts: 0, doubtSince: undefined });
      expect(sent).toBe(0);
      guard.resetCircuit('gateway');
      expect(await ended(tenant)).toMatchObject({ status: 'completed', attempts: 1, result: 1 });
      expect(await asTenant(app(), tenant, () => refund('refund:2'))).toBe(2);
      expect(await outcome(tenant, 'refund:2')).toMatchObject({ status: 'completed', attempts: 1 });
    });

    it('of what its processor was let through for does not hold itself back: not as the only one, not as the probe', async () => {
      const tenant = scripts.tenantWith((_job, { attempt }) =>
        guard.call('sensitive', () => {
          if (attempt === 1) throw new TransientError('refused');
          return guard.stateOf('sensitive');
        }),
      );
      await charge('sensitive', tenant);
      expect(await ended(tenant)).toMatchObject({
        status: 'completed',
        attempts: 2,
        result: { circuit: 'half_open', active: 1 },
      });
      await eventually(
        () =>
          events.flatMap((event) =>
            event.kind === 'circuit_changed' && event.dependency === 'sensitive' ? [event.state] : [],
          ),
        (states) => expect(states).toEqual(['open', 'half_open', 'closed']),
      );
      expect(told(tenant, 'deferred').filter(({ cause }) => cause !== 'circuit_open')).toEqual([]);
    });
  });

  it('a bulkhead of one lets ten workers in one after the other, and those it holds spend nothing', async () => {
    const gate = new Gate();
    let running = 0;
    let most = 0;
    const tenant = scripts.tenantWith(async () => {
      running += 1;
      most = Math.max(most, running);
      await gate.pass();
      running -= 1;
    });
    await idempotentQueue(app(), 'narrow').enqueueMany(
      ids(10).map((operationKey) => ({ name: 'charge', payload: {}, operationKey, tenantId: tenant })),
    );
    await gate.arrival;
    await eventually(
      () => new Set(told(tenant, 'deferred').map(({ operationKey }) => operationKey)),
      (held) => expect(held.size).toBe(9),
    );
    expect(guard.stateOf('narrow')).toMatchObject({ circuit: 'closed', active: 1 });
    gate.open();
    for (const key of ids(10))
      expect(await ended(tenant, key)).toMatchObject({ status: 'completed', attempts: 1, failures: 0 });
    expect(most).toBe(1);
    expect(new Set(told(tenant, 'deferred').map(({ cause }) => cause))).toEqual(new Set(['bulkhead_full']));
    expect(told(tenant, 'started')).toHaveLength(10);
  });

  it('a spent retry budget lets first tries through and makes retries wait, without spending their attempts', async () => {
    const tenant = scripts.tenantWith((_job, { attempt }) => {
      if (attempt === 1) throw new TransientError('refused');
      return { attempt };
    });
    // Asked when it is told: a second later it need not be true any more.
    const spent: boolean[] = [];
    onTestFinished(
      app()
        .get(JobEvents)
        .subscribe(({ kind }) => {
          if (kind === 'retry_budget_denied') spent.push(guard.stateOf('thrifty').isBudgetSpent);
        }),
    );
    for (const key of ids(3)) await charge('thrifty', tenant, key);
    const [denied] = await toldOften(tenant, 'retry_budget_denied', 1);
    expect(denied).toMatchObject({ dependency: 'thrifty', queue: 'thrifty', tenantId: tenant });
    await eventually(
      () => outcome(tenant, denied?.operationKey),
      (held) => expect(held).toMatchObject({ status: 'retrying', attempts: 1, failures: 1 }),
    );
    expect(spent[0]).toBe(true);
    for (const key of ids(3))
      expect(await ended(tenant, key)).toMatchObject({
        status: 'completed',
        attempts: 2,
        failures: 1,
        result: { attempt: 2 },
      });
    const held = told(tenant, 'deferred');
    expect(held).toHaveLength(told(tenant, 'retry_budget_denied').length);
    for (const event of held)
      expect(event).toMatchObject({ cause: 'retry_budget_spent', dependency: 'thrifty' });
    const started = told(tenant, 'started').map(({ operationKey, attempt }) => `${operationKey} ${attempt}`);
    expect(started.toSorted()).toEqual(ids(3).flatMap((key) => [`${key} 1`, `${key} 2`]));
  });

  it('a retry budget of nothing keeps every retry waiting, and no first try', async () => {
    const tenant = scripts.tenantWith((job) => {
      if (job.name === 'flaky') throw new TransientError('refused');
    });
    await charge('miserly', tenant, 'charge:flaky', 'flaky');
    await toldOften(tenant, 'retry_budget_denied', 2);
    await charge('miserly', tenant);
    expect(await ended(tenant)).toMatchObject({ status: 'completed', attempts: 1 });
    expect(told(tenant, 'started').map(({ operationKey, attempt }) => `${operationKey} ${attempt}`)).toEqual([
      'charge:flaky 1',
      'charge:1 1',
    ]);
  });
});
