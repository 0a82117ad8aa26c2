import type { WorkerHost } from '@nestjs/bullmq';
import {
  type CanActivate,
  type ExecutionContext,
  type LoggerService,
  type Type,
  UseGuards,
} from '@nestjs/common';
import { DelayedError, type Job, RateLimitError, WaitingError, type Worker } from 'bullmq';
import {
  type CurrentOperation,
  type IdempotentProcessorOptions,
  type Outcome,
  Reconciliation,
} from 'nestjs-idempotent-jobs';
import { IdempotencyService } from 'nestjs-idempotent-jobs/calls';
import { OperationInDoubtError } from 'nestjs-idempotent-jobs/errors';
import { type JobEvent, JobEvents } from 'nestjs-idempotent-jobs/observe';
import { prometheusMetrics } from 'nestjs-idempotent-jobs/prometheus';
import { Registry } from 'prom-client';
import { beforeAll, describe, expect, it } from 'vitest';
import { useApps, useOneApp } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import {
  asTenant,
  bullQueue,
  deliver,
  enqueue,
  type LetterRow,
  lettersOf,
  outcomeOf,
  settled,
  stateOf,
  stepOf,
} from '../support/ledger.js';
import { parseScrape } from '../support/parse-scrape.js';
import {
  type Handler,
  identifyPlain,
  processorOf,
  reconcilingProcessorOf,
  Scripts,
} from '../support/processors.js';
import { ANY_BACKEND, BACKENDS } from '../support/scenario.js';

/** An error that a stranger could have written: its words are BullMQ's, its class is not. */
const posing = (name: string, message = 'declined'): Error => Object.assign(new Error(message), { name });

const IMPOSTORS: readonly (readonly [string, () => Error])[] = [
  ['the message of a RateLimitError', () => new Error('bullmq:rateLimitExceeded')],
  ['the name DelayedError', () => posing('DelayedError')],
  ['the name WaitingError', () => posing('WaitingError')],
  ['the name WaitingChildrenError', () => posing('WaitingChildrenError')],
  ['the class DelayedError, with its job where it was', () => new DelayedError()],
  ['the class RateLimitError, with no limit set', () => new RateLimitError()],
];

const ROWS = IMPOSTORS.map(([what], row) => [what, row] as const);

/** Moves its job, as BullMQ documents it. */
async function moveAway(job: Job, delayMs = 50): Promise<never> {
  await job.moveToDelayed(Date.now() + delayMs, job.token);
  throw new DelayedError();
}

describe.each(BACKENDS)('jobs that their handler hands back, on %s', (backend) => {
  const apps = useApps();

  // One application for all cases but those of impostors, and one that looks at metrics and logs. Each has a tenant of its
  // own, and a queue of its own where it sets limits or calls what is not its handler.
  const scripts = new Scripts();
  const story: string[] = [];
  let looks = 0;
  const guard: CanActivate = {
    canActivate(context: ExecutionContext): boolean | Promise<never> {
      looks += 1;
      return looks > 2 || moveAway(context.switchToHttp().getRequest<Job>());
    },
  };
  const QUEUES = {
    once: {},
    plain: { identify: identifyPlain },
    natural: { effect: 'natural' },
    transactional: { effect: 'transactional' },
    keyed: { effect: 'keyed' },
    'limited-by-worker': {},
    'limited-by-queue': {},
    guarded: {},
  } satisfies Record<string, IdempotentProcessorOptions>;
  const processors = new Map(
    Object.entries(QUEUES).map(([queue, options]) => [queue, processorOf(queue, options, scripts.handler)]),
  );
  UseGuards(guard)(processors.get('guarded') as Type<WorkerHost>);
  const shared = useOneApp(backend, {
    queues: [...processors.keys(), 'reconciled'],
    providers: [
      ...processors.values(),
      reconcilingProcessorOf(
        'reconciled',
        { effect: 'reconciled', reconcile: { lateArrivalMs: 0 } },
        scripts.handler,
        () => {
          story.push('asked');
          return Reconciliation.notApplied();
        },
      ),
    ],
  });
  const events: JobEvent[] = [];
  beforeAll(
    () =>
      void shared()
        .get(JobEvents)
        .subscribe((event) => events.push(event)),
  );
  const workerOf = (queue: keyof typeof QUEUES): Worker =>
    shared().get<WorkerHost>(processors.get(queue) as Type<WorkerHost>).worker;
  /** Charges for a tenant whose charges are handled so, and answers with the tenant. */
  const charge = async (queue: keyof typeof QUEUES | 'reconciled', handler: Handler): Promise<string> => {
    const tenant = scripts.tenantWith(handler);
    await enqueue(shared(), queue, 'charge', {}, 'charge:1', tenant);
    return tenant;
  };
  const ended = (tenant: string): Promise<Outcome> => settled(shared(), 'charge:1', tenant);

  describe('an error with', () => {
    const calls: string[] = [];
    const pose = (job: Job, { operationKey }: CurrentOperation): never => {
      calls.push(operationKey);
      const [, make] = IMPOSTORS[(job.data as { row: number }).row] as (typeof IMPOSTORS)[number];
      throw make();
    };
    const retry = { attempts: 3, backoff: { baseMs: 10, capMs: 20 } };
    const app = useOneApp(backend, {
      queues: ['once', 'repeatable'],
      providers: [
        processorOf('once', {}, pose),
        processorOf('repeatable', { effect: 'natural', retry }, pose),
      ],
    });
    const told: JobEvent[] = [];
    beforeAll(
      () =>
        void app()
          .get(JobEvents)
          .subscribe((event) => told.push(event)),
    );
    const callsOf = (key: string): number => calls.filter((one) => one === key).length;
    const lettersAbout = async (key: string): Promise<LetterRow[]> =>
      (await lettersOf(app())).filter((letter) => letter.operation_key === key);

    it.each(ROWS)(
      '%s is an ordinary failure: what must not be repeated is in doubt, after one call',
      async (_what, row) => {
        const key = `once:${row}`;
        await enqueue(app(), 'once', 'charge', { row }, key);
        expect(await settled(app(), key)).toMatchObject({ status: 'in_doubt', attempts: 1 });
        expect(callsOf(key)).toBe(1);
        expect(told.map(({ kind }) => kind)).not.toContain('handed_back');
        expect(await lettersAbout(key)).toMatchObject([{ reason: 'in_doubt', payload: { row } }]);
        await eventually(
          () => bullQueue(app(), 'once').getJobs(),
          (jobs) => {
            const own = jobs.filter(({ data }) => JSON.stringify(data).includes(`"${key}"`));
            expect(own.map(({ finishedOn }) => typeof finishedOn)).toEqual(['number']);
          },
        );
      },
    );

    it.each(ROWS)(
      '%s spends the attempts of an effect that may be repeated, and no more',
      async (_what, row) => {
        const key = `repeatable:${row}`;
        await enqueue(app(), 'repeatable', 'charge', { row }, key);
        expect(await settled(app(), key)).toMatchObject({ status: 'dead', attempts: 3 });
        expect(callsOf(key)).toBe(3);
        expect(await lettersAbout(key)).toMatchObject([{ reason: 'retries_exhausted' }]);
      },
    );
  });

  it('what has been moved away is in doubt where it must not be repeated, and its job is answered when it comes', async () => {
    let calls = 0;
    const tenant = scripts.tenantWith((job) => {
      calls += 1;
      return moveAway(job);
    });
    const job = await deliver(shared(), 'plain', 'charge:1', {}, tenant);
    expect(await ended(tenant)).toMatchObject({ status: 'in_doubt', attempts: 1 });
    const [letter] = await lettersOf(shared(), tenant);
    expect(letter).toMatchObject({ reason: 'in_doubt', payload: { key: 'charge:1' } });
    expect(letter?.error?.message).toContain('markNotApplied()');
    await eventually(
      () => stateOf(shared(), 'plain', job),
      (state) => expect(state).toBe('failed'),
    );
    expect(calls).toBe(1);
  });

  it('a handler that says that nothing has happened gets its job again, without a doubt and without an attempt', async () => {
    let calls = 0;
    const tenant = await charge('once', (job, operation) => {
      calls += 1;
      if (calls > 2) return operation.attempt;
      operation.markNotApplied();
      return moveAway(job);
    });
    expect(await ended(tenant)).toMatchObject({ status: 'completed', attempts: 1, result: 1 });
    const own = events.filter(({ tenantId }) => tenantId === tenant);
    expect(own.filter(({ kind }) => kind === 'handed_back')).toHaveLength(2);
    expect(await lettersOf(shared(), tenant)).toEqual([]);
  });

  it.each([
    ['natural', false],
    ['transactional', false],
    ['keyed', true],
  ] as const)('with effect %s it comes back, doubtful: %s', async (effect, isDoubtful) => {
    const doubts: unknown[] = [];
    const tenant = await charge(effect, async (job, { tenantId }) => {
      const row = await outcomeOf(shared(), 'charge:1', tenantId);
      if (doubts.push(row?.doubtSince) > 1) return 'done';
      await job.moveToDelayed(Date.now() + 50, job.token);
      throw new WaitingError();
    });
    expect(await ended(tenant)).toMatchObject({ status: 'completed', attempts: 1 });
    expect(doubts.map((since) => since !== undefined)).toEqual([false, isDoubtful]);
  });

  it('with effect reconciled the service is asked before it is called again', async () => {
    const tenant = await charge('reconciled', (job) => {
      story.push('called');
      return story.length > 2 ? 'done' : moveAway(job);
    });
    expect(await ended(tenant)).toMatchObject({ status: 'completed' });
    expect(story).toEqual(['called', 'asked', 'called']);
  });

  it.each(['worker', 'queue'] as const)(
    'a limit that the handler has set on its %s hands the job back',
    async (which) => {
      let calls = 0;
      const queue = `limited-by-${which}` as const;
      const tenant = await charge(queue, async (_job, operation) => {
        calls += 1;
        if (calls > 1) return 'done';
        const limiter = which === 'worker' ? workerOf(queue) : bullQueue(shared(), queue);
        await limiter.rateLimit(100);
        operation.markNotApplied();
        throw new RateLimitError();
      });
      expect(await ended(tenant)).toMatchObject({ status: 'completed', attempts: 1 });
      expect(calls).toBe(2);
    },
  );

  it('a job that its handler has moved stays where it is, whatever the handler returns or throws then', async () => {
    let calls = 0;
    const errors: string[] = [];
    const tenant = scripts.tenantWith(async (job) => {
      calls += 1;
      await job.moveToDelayed(Date.now() + 200, job.token);
      return 'done all the same';
    });
    workerOf('plain').on('error', (error) => errors.push(error.message));
    const job = await deliver(shared(), 'plain', 'charge:1', {}, tenant);
    expect(await ended(tenant)).toMatchObject({ status: 'completed' });
    await eventually(
      () => stateOf(shared(), 'plain', job),
      (state) => expect(state).toBe('completed'),
    );
    expect(calls).toBe(1);
    expect(errors).toEqual([]);
  });

  it('what is handed back again and again is warned of, and counted', async () => {
    const registry = new Registry();
    const warnings: string[] = [];
    const logger: LoggerService = {
      log: () => undefined,
      error: () => undefined,
      warn: (line: string) => warnings.push(line),
    };
    const events: JobEvent[] = [];
    let calls = 0;
    const processor = processorOf('charges', { effect: 'natural' }, (job) => {
      calls += 1;
      return calls > 8 ? 'done' : moveAway(job, 5);
    });
    const { app } = await apps.fresh(backend, {
      queues: ['charges'],
      providers: [processor],
      jobs: { metrics: [prometheusMetrics({ registry })] },
      logger,
    });
    app.get(JobEvents).subscribe((event) => events.push(event));
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    await settled(app, 'charge:1');
    // Events come after their rows.
    await eventually(
      () => events.flatMap((event) => (event.kind === 'handed_back' ? [event.times] : [])),
      (told) => expect(told).toEqual([1, 2, 3, 4, 5, 6, 7, 8]),
    );
    const lines = warnings.filter((line) => line.startsWith('handed_back'));
    expect(lines.map((line) => /times=(\d+)/.exec(line)?.[1])).toEqual(['2', '4', '8']);
    const { series } = parseScrape(await registry.metrics());
    expect(series['jobs_handed_back_total{job="charge",kind="first",queue="charges"}']).toBe(1);
    expect(series['jobs_handed_back_total{job="charge",kind="again",queue="charges"}']).toBe(7);
  });

  it('a guard may hand the job back, without a doubt: its handler was not called', async () => {
    let calls = 0;
    const tenant = await charge('guarded', () => {
      calls += 1;
      return 'done';
    });
    expect(await ended(tenant)).toMatchObject({ status: 'completed', attempts: 1, failures: 0 });
    expect([looks, calls]).toEqual([3, 1]);
  });

  it('a step has no job of its own to hand back: its control error is a failure of the step', async () => {
    let runs = 0;
    const tenant = await charge('natural', (_job, operation) =>
      operation.step('charge', () => {
        runs += 1;
        throw new DelayedError();
      }),
    );
    await eventually(
      () => stepOf(shared(), 'charge:1', 'charge', tenant),
      (outcome) => expect(outcome).toMatchObject({ status: 'in_doubt' }),
    );
    expect(runs).toBe(1);
  });
});

describe('guarded calls that throw what BullMQ would act on', () => {
  const app = useOneApp(ANY_BACKEND, { queues: [] });

  it.each(IMPOSTORS)('with %s: in doubt, and not called a second time', async (what, make) => {
    let calls = 0;
    const charge = (): Promise<unknown> =>
      asTenant(app(), 'acme', () =>
        app()
          .get(IdempotencyService)
          .once(`charge with ${what}`, () => {
            calls += 1;
            throw make();
          }),
      );
    await expect(charge()).rejects.toBeInstanceOf(OperationInDoubtError);
    await expect(charge()).rejects.toBeInstanceOf(OperationInDoubtError);
    expect(calls).toBe(1);
  });
});
