import type { INestApplicationContext, Provider } from '@nestjs/common';
import {
  InDoubtError,
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
import { describe, expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
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
import type { Place } from '../support/place.js';
import { Gate, identifyPlain, processorOf, reconcilingProcessorOf } from '../support/processors.js';
import { BACKENDS, dataSourceOf } from '../support/scenario.js';

/** Opens at the first failure, for moments; one success closes it. */
const SENSITIVE = { minimumCalls: 1, openMs: 300, maxOpenMs: 300, successes: 1 };
/** As above, but only a person opens it. */
const STEADY = { ...SENSITIVE, minimumCalls: 1_000 };
const JOBS = { dependencies: { gateway: { breaker: STEADY } } };
const QUICK = { attempts: 4, backoff: { baseMs: 10, capMs: 20 } };

const ids = (count: number): string[] => Array.from({ length: count }, (_none, index) => `charge:${index}`);

type EventOf<K extends JobEvent['kind']> = Extract<JobEvent, { kind: K }>;

/** An application, and what has happened in it. */
interface Story {
  readonly app: INestApplicationContext;
  readonly place: Place;
  readonly guard: DependencyGuard;
  told<K extends JobEvent['kind']>(kind: K): EventOf<K>[];
  /** Waits until it was told so often. */
  toldOften<K extends JobEvent['kind']>(kind: K, often: number): Promise<EventOf<K>[]>;
}

describe.each(BACKENDS)('dependencies, on %s', (backend) => {
  const apps = useApps();

  const begin = async (
    providers: readonly Provider[],
    dependencies: Record<string, DependencyOptions> = JOBS.dependencies,
  ): Promise<Story> => {
    const { app, place } = await apps.fresh(backend, {
      queues: ['charges'],
      providers,
      jobs: { dependencies },
    });
    const events: JobEvent[] = [];
    app.get(JobEvents).subscribe((event) => events.push(event));
    const told = <K extends JobEvent['kind']>(kind: K): EventOf<K>[] =>
      events.filter((event): event is EventOf<K> => event.kind === kind);
    return {
      app,
      place,
      guard: app.get(DependencyGuard),
      told,
      toldOften: (kind, often) =>
        eventually(
          () => told(kind),
          (list) => expect(list.length).toBeGreaterThanOrEqual(often),
        ),
    };
  };

  describe('an open circuit', () => {
    it('puts a job off without an attempt, as often as it takes; then it completes with its first', async () => {
      let calls = 0;
      const processor = processorOf('charges', { effect: 'unrepeatable', dependency: 'gateway' }, () => {
        calls += 1;
      });
      const story = await begin([processor]);
      story.guard.forceOpen('gateway');
      await enqueue(story.app, 'charges', 'charge', {}, 'charge:1');
      const deferred = await story.toldOften('deferred', 2);
      expect(deferred[0]).toMatchObject({
        queue: 'charges',
        operationKey: 'charge:1',
        cause: 'circuit_open',
        dependency: 'gateway',
      });
      for (const { delayMs } of deferred) expect(delayMs).toBeLessThanOrEqual(300 * 1.25);
      expect(await outcomeOf(story.app, 'charge:1')).toMatchObject({
        status: 'pending',
        attempts: 0,
        startedAt: undefined,
      });
      expect(calls).toBe(0);

      story.guard.resetCircuit('gateway');
      expect(await settled(story.app, 'charge:1')).toMatchObject({ status: 'completed', attempts: 1 });
      expect(story.told('started').map(({ attempt }) => attempt)).toEqual([1]);
      expect(calls).toBe(1);
    });

    it('puts off what the ledger does not know yet, and makes no row of it', async () => {
      const processor = processorOf(
        'charges',
        { effect: 'keyed', dependency: 'gateway', identify: identifyPlain },
        () => 'done',
      );
      const story = await begin([processor]);
      story.guard.forceOpen('gateway');
      await deliver(story.app, 'charges', 'charge:1');
      await story.toldOften('deferred', 2);
      expect(await outcomeOf(story.app, 'charge:1')).toBeUndefined();
      story.guard.resetCircuit('gateway');
      expect(await settled(story.app, 'charge:1')).toMatchObject({ status: 'completed', attempts: 1 });
    });

    it('replays what has completed, and buries a conflict; what is dead stays dead', async () => {
      let calls = 0;
      const processor = processorOf(
        'charges',
        { effect: 'keyed', dependency: 'gateway', identify: identifyPlain },
        (job) => {
          calls += 1;
          if ((job.data as { key: string }).key === 'charge:dead') throw new PermanentError('no such card');
          return { charged: true };
        },
      );
      const story = await begin([processor]);
      const { app } = story;
      await deliver(app, 'charges', 'charge:1');
      await deliver(app, 'charges', 'charge:dead');
      await settled(app, 'charge:1');
      await settled(app, 'charge:dead');
      story.guard.forceOpen('gateway');

      const replay = await deliver(app, 'charges', 'charge:1');
      await story.toldOften('replayed', 1);
      await eventually(
        () => bullQueue(app, 'charges').getJob(replay.id as string),
        (job) => expect(job?.returnvalue).toEqual({ charged: true }),
      );
      const conflict = await deliver(app, 'charges', 'charge:1', { amount: 2 });
      const dead = await deliver(app, 'charges', 'charge:dead');
      for (const job of [conflict, dead])
        await eventually(
          () => stateOf(app, 'charges', job),
          (state) => expect(state).toBe('failed'),
        );
      expect((await lettersOf(app)).map(({ operation_key: key, reason }) => `${key} ${reason}`)).toEqual([
        'charge:dead permanent_error',
        'charge:1 idempotency_conflict',
      ]);
      expect(await outcomeOf(app, 'charge:1')).toMatchObject({ status: 'completed' });
      expect(await outcomeOf(app, 'charge:dead')).toMatchObject({ status: 'dead', attempts: 1 });
      expect(story.told('deferred')).toEqual([]);
      expect(calls).toBe(2);
    });

    it('leaves no doubt of an unrepeatable effect whose worker goes while it is put off: nothing was claimed', async () => {
      let calls = 0;
      const processor = processorOf('charges', { effect: 'unrepeatable', dependency: 'gateway' }, () => {
        calls += 1;
      });
      const story = await begin([processor]);
      story.guard.forceOpen('gateway');
      await enqueue(story.app, 'charges', 'charge', {}, 'charge:1');
      await story.toldOften('deferred', 1);
      const [row] = await dataSourceOf(story.app).query<object[]>(
        'SELECT status, fencing_token, run_id FROM job_outcomes',
      );
      await apps.close(story.app);
      const heir = await apps.beside(story.place, {
        queues: ['charges'],
        providers: [processor],
        jobs: JOBS,
      });
      expect(await settled(heir, 'charge:1')).toMatchObject({
        status: 'completed',
        attempts: 1,
        doubtSince: undefined,
      });
      expect(row).toEqual({ status: 'pending', fencing_token: '0', run_id: null });
      expect(calls).toBe(1);
    });

    it('leaves a doubt alone: nobody is asked, the plan goes on, and the question comes once it is closed', async () => {
      const asked: number[] = [];
      const story = await begin([
        reconcilingProcessorOf(
          'charges',
          {
            effect: 'reconciled',
            dependency: 'gateway',
            retry: QUICK,
            reconcile: { afterMs: [50], thenEveryMs: 100, untilMs: 60_000 },
          },
          (_job, { attempt }) => {
            if (attempt > 1) return { attempt };
            story.guard.forceOpen('gateway');
            throw new InDoubtError('nobody answered');
          },
          ({ attempt }): Reconciliation => {
            asked.push(attempt);
            return Reconciliation.notApplied();
          },
        ),
      ]);
      const { app } = story;
      await enqueue(app, 'charges', 'charge', {}, 'charge:1');
      const unanswered = await story.toldOften('reconciled', 3);
      for (const event of unanswered)
        expect(event).toMatchObject({ attempt: 1, verdict: 'unknown', detail: 'circuit_open' });
      expect(await outcomeOf(app, 'charge:1')).toMatchObject({ status: 'in_doubt', attempts: 1 });
      expect(asked).toEqual([]);

      story.guard.resetCircuit('gateway');
      expect(await settled(app, 'charge:1')).toMatchObject({
        status: 'completed',
        result: { attempt: 2 },
        attempts: 2,
      });
      expect(asked).toEqual([1]);
      const history = await app.get(OutcomeService).history({ tenantId: 'acme', operationKey: 'charge:1' });
      const reasons = history.flatMap((entry) => (entry.kind === 'reconciled' ? [entry.reason] : []));
      expect(reasons.at(-1)).toBe('not_applied');
      expect(new Set(reasons.slice(0, -1))).toEqual(new Set(['circuit_open']));
    });

    it.each([
      { title: 'whose key the service remembers is put off', keyRetentionMs: 60_000, asks: false },
      { title: 'whose key it has forgotten waits for its question', keyRetentionMs: 200, asks: true },
    ])('a keyed operation with a doubt $title', async ({ keyRetentionMs, asks }) => {
      const asked: number[] = [];
      const story = await begin([
        reconcilingProcessorOf(
          'charges',
          {
            effect: 'keyed',
            dependency: 'gateway',
            keyRetentionMs,
            retry: { attempts: 4, backoff: { baseMs: 10, capMs: 10 } },
            reconcile: { afterMs: [50], thenEveryMs: 100, untilMs: 60_000 },
          },
          (_job, { attempt }) => {
            if (attempt > 1) return { attempt };
            story.guard.forceOpen('gateway');
            throw new InDoubtError('nobody answered');
          },
          ({ attempt }): Reconciliation => {
            asked.push(attempt);
            return Reconciliation.notApplied();
          },
        ),
      ]);
      const { app } = story;
      await enqueue(app, 'charges', 'charge', {}, 'charge:1');
      if (asks) await story.toldOften('reconciled', 2);
      else
        expect((await story.toldOften('deferred', 2)).map(({ cause }) => cause)).toEqual([
          'circuit_open',
          'circuit_open',
        ]);
      const held = await outcomeOf(app, 'charge:1');
      expect(held).toMatchObject({ status: asks ? 'in_doubt' : 'retrying', attempts: 1 });
      expect(held?.doubtSince).toBeInstanceOf(Date);
      expect(asked).toEqual([]);
      story.guard.resetCircuit('gateway');
      expect(await settled(app, 'charge:1')).toMatchObject({ status: 'completed', attempts: 2 });
      expect(asked).toEqual(asks ? [1] : []);
    });

    it('ends in a letter when the time budget is over: one for what was tried, another for what never was', async () => {
      const story = await begin([
        processorOf(
          'charges',
          { effect: 'keyed', dependency: 'gateway', timeBudgetMs: 900, retry: QUICK },
          () => {
            story.guard.forceOpen('gateway');
            throw new TransientError('refused');
          },
        ),
      ]);
      const { app } = story;
      await enqueue(app, 'charges', 'charge', {}, 'charge:tried');
      await story.toldOften('retrying', 1);
      await enqueue(app, 'charges', 'charge', {}, 'charge:never');
      expect(await settled(app, 'charge:tried')).toMatchObject({ status: 'dead' });
      expect(await settled(app, 'charge:never')).toMatchObject({ status: 'dead' });
      const letters = await lettersOf(app);
      expect(Object.fromEntries(letters.map(({ operation_key: key, reason }) => [key, reason]))).toEqual({
        'charge:tried': 'time_budget_exceeded',
        'charge:never': 'deferred_too_long',
      });
      expect(story.told('started')).toHaveLength(1);
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
      const story = await begin([
        processorOf('charges', { effect: 'unrepeatable', retry: QUICK }, () => {
          calls += 1;
          return pass(story.guard.call('gateway', () => ({ sent: (sent += 1) })));
        }),
      ]);
      const { app } = story;
      story.guard.forceOpen('gateway');
      await enqueue(app, 'charges', 'charge', {}, 'charge:1');
      const deferred = await story.toldOften('deferred', 2);
      expect(deferred[0]).toMatchObject({ cause: 'circuit_open', dependency: 'gateway' });
      await eventually(
        () => outcomeOf(app, 'charge:1'),
        (outcome) =>
          expect(outcome).toMatchObject({
            status: 'retrying',
            attempts: 0,
            failures: 0,
            doubtSince: undefined,
          }),
      );
      expect(sent).toBe(0);
      story.guard.resetCircuit('gateway');
      expect(await settled(app, 'charge:1')).toMatchObject({
        status: 'completed',
        attempts: 1,
        result: { sent: 1 },
      });
      expect(calls).toBeGreaterThanOrEqual(3);
      expect(story.told('retrying')).toEqual([]);
      const history = await app.get(OutcomeService).history({ tenantId: 'acme', operationKey: 'charge:1' });
      expect(history.map(({ kind }) => kind)).toEqual(['accepted', 'completed']);
    });

    it('that is held and caught is the handler’s to answer: the operation completes', async () => {
      const story = await begin([
        processorOf('charges', { effect: 'keyed' }, async () => {
          try {
            return await story.guard.call('gateway', () => 'charged');
          } catch (error) {
            if (error instanceof DependencyRejectedError) return { later: error.rejection.cause };
            throw error;
          }
        }),
      ]);
      story.guard.forceOpen('gateway');
      await enqueue(story.app, 'charges', 'charge', {}, 'charge:1');
      expect(await settled(story.app, 'charge:1')).toMatchObject({
        status: 'completed',
        attempts: 1,
        result: { later: 'circuit_open' },
        degraded: undefined,
      });
    });

    it('that is held takes back what a transactional handler has written', async () => {
      const story = await begin([
        processorOf('charges', { effect: 'transactional' }, async (_job, { transaction }) => {
          await transaction.query('INSERT INTO stock VALUES (1)');
          return story.guard.call('gateway', () => 'charged');
        }),
      ]);
      const { app } = story;
      await dataSourceOf(app).query('CREATE TABLE stock (item integer)');
      const rows = (): Promise<unknown[]> => dataSourceOf(app).query('SELECT * FROM stock');
      story.guard.forceOpen('gateway');
      await enqueue(app, 'charges', 'charge', {}, 'charge:1');
      await story.toldOften('deferred', 2);
      expect(await rows()).toEqual([]);
      expect(await outcomeOf(app, 'charge:1')).toMatchObject({ status: 'pending', attempts: 0 });
      story.guard.resetCircuit('gateway');
      expect(await settled(app, 'charge:1')).toMatchObject({ status: 'completed', attempts: 1 });
      expect(await rows()).toHaveLength(1);
    });

    it.each(['keyed', 'transactional'] as const)(
      'that is held for longer than the time budget of a %s handler ends in a letter',
      async (effect) => {
        const story = await begin([
          processorOf('charges', { effect, timeBudgetMs: 2000, retry: QUICK }, () =>
            story.guard.call('gateway', () => 'charged'),
          ),
        ]);
        const { app } = story;
        story.guard.forceOpen('gateway');
        await enqueue(app, 'charges', 'charge', {}, 'charge:1');
        expect(await settled(app, 'charge:1')).toMatchObject({ status: 'dead' });
        const [letter] = await lettersOf(app);
        // On a busy machine the first attempt may come too late, so that none was ever started.
        expect(['time_budget_exceeded', 'deferred_too_long']).toContain(letter?.reason);
        expect(story.told('deferred').length).toBeGreaterThanOrEqual(1);
      },
    );

    it('that is held in a step makes the operation wait; steps that have finished stay finished', async () => {
      const runs: string[] = [];
      const story = await begin([
        processorOf('charges', { effect: 'natural', retry: QUICK }, async (_job, { step }) => {
          await step('reserve', () => runs.push('reserve'));
          return step('charge', () => story.guard.call('gateway', () => runs.push('charge')));
        }),
      ]);
      const { app } = story;
      story.guard.forceOpen('gateway');
      await enqueue(app, 'charges', 'order', {}, 'order:1');
      await eventually(
        () => story.told('deferred').map(({ operationKey, cause }) => `${operationKey} ${cause}`),
        (list) => {
          expect(list).toContain('order:1/charge circuit_open');
          expect(list).toContain('order:1 waiting');
        },
      );
      await eventually(
        () => stepOf(app, 'order:1', 'charge'),
        (outcome) => expect(outcome).toMatchObject({ status: 'retrying', attempts: 0 }),
      );
      expect(runs).toEqual(['reserve']);
      story.guard.resetCircuit('gateway');
      expect(await settled(app, 'order:1')).toMatchObject({ status: 'completed', attempts: 1, result: 2 });
      expect(await stepOf(app, 'order:1', 'charge')).toMatchObject({ status: 'completed', attempts: 1 });
      expect(runs).toEqual(['reserve', 'charge']);
    });

    it('that is held in once() puts off the job around it, and is told to any other caller', async () => {
      let sent = 0;
      const refund = (app: INestApplicationContext, key: string): Promise<unknown> =>
        app
          .get(IdempotencyService)
          .once(key, () => app.get(DependencyGuard).call('gateway', () => (sent += 1)));
      const story = await begin([
        processorOf('charges', { effect: 'natural', retry: QUICK }, () => refund(story.app, 'refund:1')),
      ]);
      const { app } = story;
      story.guard.forceOpen('gateway');
      await enqueue(app, 'charges', 'charge', {}, 'charge:1');
      const isOwn = ({ operationKey, cause }: EventOf<'deferred'>): boolean =>
        operationKey === 'charge:1' && cause === 'circuit_open';
      await eventually(
        () => story.told('deferred').filter(isOwn),
        (list) => expect(list.length).toBeGreaterThanOrEqual(2),
      );
      await expect(asTenant(app, 'acme', () => refund(app, 'refund:2'))).rejects.toThrow(
        DependencyRejectedError,
      );
      expect(await outcomeOf(app, 'refund:2')).toMatchObject({ attempts: 0, doubtSince: undefined });
      expect(sent).toBe(0);
      story.guard.resetCircuit('gateway');
      expect(await settled(app, 'charge:1')).toMatchObject({ status: 'completed', attempts: 1, result: 1 });
      expect(await asTenant(app, 'acme', () => refund(app, 'refund:2'))).toBe(2);
      expect(await outcomeOf(app, 'refund:2')).toMatchObject({ status: 'completed', attempts: 1 });
    });

    it('of what its processor was let through for does not hold itself back: not as the only one, not as the probe', async () => {
      const story = await begin(
        [
          processorOf(
            'charges',
            { effect: 'keyed', dependency: 'gateway', retry: QUICK },
            (_job, { attempt }) =>
              story.guard.call('gateway', () => {
                if (attempt === 1) throw new TransientError('refused');
                return story.guard.stateOf('gateway');
              }),
          ),
        ],
        { gateway: { breaker: SENSITIVE, retryBudget: false, maxConcurrent: 1 } },
      );
      await enqueue(story.app, 'charges', 'charge', {}, 'charge:1');
      expect(await settled(story.app, 'charge:1')).toMatchObject({
        status: 'completed',
        attempts: 2,
        result: { circuit: 'half_open', active: 1 },
      });
      await eventually(
        () => story.told('circuit_changed').map(({ state }) => state),
        (states) => expect(states).toEqual(['open', 'half_open', 'closed']),
      );
      expect(story.told('deferred').filter(({ cause }) => cause !== 'circuit_open')).toEqual([]);
    });
  });

  it('a bulkhead of one lets ten workers in one after the other, and those it holds spend nothing', async () => {
    const gate = new Gate();
    let running = 0;
    let most = 0;
    const story = await begin(
      [
        processorOf('charges', { effect: 'unrepeatable', dependency: 'gateway' }, async () => {
          running += 1;
          most = Math.max(most, running);
          await gate.pass();
          running -= 1;
        }),
      ],
      { gateway: { maxConcurrent: 1 } },
    );
    const { app } = story;
    await idempotentQueue(app, 'charges').enqueueMany(
      ids(10).map((operationKey) => ({ name: 'charge', payload: {}, operationKey, tenantId: 'acme' })),
    );
    await gate.arrival;
    await eventually(
      () => new Set(story.told('deferred').map(({ operationKey }) => operationKey)),
      (held) => expect(held.size).toBe(9),
    );
    expect(story.guard.stateOf('gateway')).toMatchObject({ circuit: 'closed', active: 1 });
    gate.open();
    for (const key of ids(10))
      expect(await settled(app, key)).toMatchObject({ status: 'completed', attempts: 1, failures: 0 });
    expect(most).toBe(1);
    expect(new Set(story.told('deferred').map(({ cause }) => cause))).toEqual(new Set(['bulkhead_full']));
    expect(story.told('started')).toHaveLength(10);
  });

  it('a spent retry budget lets first tries through and makes retries wait, without spending their attempts', async () => {
    const story = await begin(
      [
        processorOf(
          'charges',
          { effect: 'keyed', dependency: 'gateway', retry: QUICK },
          (_job, { attempt }) => {
            if (attempt === 1) throw new TransientError('refused');
            return { attempt };
          },
        ),
      ],
      // One retry a second.
      { gateway: { breaker: false, retryBudget: { ratio: 0, minPerSecond: 1, windowMs: 1_000 } } },
    );
    const { app } = story;
    // Asked when it is told: a second later it need not be true any more.
    const spent: boolean[] = [];
    app.get(JobEvents).subscribe(({ kind }) => {
      if (kind === 'retry_budget_denied') spent.push(story.guard.stateOf('gateway').isBudgetSpent);
    });
    for (const key of ids(3)) await enqueue(app, 'charges', 'charge', {}, key);
    const [denied] = await story.toldOften('retry_budget_denied', 1);
    expect(denied).toMatchObject({ dependency: 'gateway', queue: 'charges', tenantId: 'acme' });
    await eventually(
      () => outcomeOf(app, denied?.operationKey as string),
      (outcome) => expect(outcome).toMatchObject({ status: 'retrying', attempts: 1, failures: 1 }),
    );
    expect(spent[0]).toBe(true);
    for (const key of ids(3))
      expect(await settled(app, key)).toMatchObject({
        status: 'completed',
        attempts: 2,
        failures: 1,
        result: { attempt: 2 },
      });
    const held = story.told('deferred');
    expect(held).toHaveLength(story.told('retry_budget_denied').length);
    for (const event of held)
      expect(event).toMatchObject({ cause: 'retry_budget_spent', dependency: 'gateway' });
    const started = story.told('started').map(({ operationKey, attempt }) => `${operationKey} ${attempt}`);
    expect(started.toSorted()).toEqual(ids(3).flatMap((key) => [`${key} 1`, `${key} 2`]));
  });

  it('a retry budget of nothing keeps every retry waiting, and no first try', async () => {
    const story = await begin(
      [
        processorOf('charges', { effect: 'keyed', dependency: 'gateway', retry: QUICK }, (job) => {
          if (job.name === 'flaky') throw new TransientError('refused');
        }),
      ],
      { gateway: { breaker: false, retryBudget: { ratio: 0, minPerSecond: 0 } } },
    );
    const { app } = story;
    await enqueue(app, 'charges', 'flaky', {}, 'charge:flaky');
    await story.toldOften('retry_budget_denied', 2);
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'completed', attempts: 1 });
    expect(story.told('started').map(({ operationKey, attempt }) => `${operationKey} ${attempt}`)).toEqual([
      'charge:flaky 1',
      'charge:1 1',
    ]);
  });
});
