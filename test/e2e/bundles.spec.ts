import type { INestApplicationContext } from '@nestjs/common';
import type { WorkerHost } from '@nestjs/bullmq';
import { DelayedError, type Job, RateLimitError, type Worker } from 'bullmq';
import { IsInt } from 'class-validator';
import {
  type IdempotentProcessorOptions,
  type Outcome,
  PermanentError,
  TransientError,
} from 'nestjs-idempotent-jobs';
import { UsageError } from 'nestjs-idempotent-jobs/errors';
import { DispatchService, RetentionService } from 'nestjs-idempotent-jobs/operate';
import { prometheusMetrics } from 'nestjs-idempotent-jobs/prometheus';
import { Registry } from 'prom-client';
import { describe, expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
import { cliIn, jsonOf } from '../support/cli.js';
import { eventually } from '../support/eventually.js';
import { parseScrape } from '../support/parse-scrape.js';
import {
  bullQueue,
  deliver,
  enqueue,
  idempotentQueue,
  lettersOf,
  outcomeOf,
  settled,
  shortenLeases,
  stateOf,
} from '../support/ledger.js';
import type { Place } from '../support/place.js';
import { useProcesses } from '../support/processes.js';
import { Gate, type Handler, identifyPlain, processorOf, SHORT_CLOCKS } from '../support/processors.js';
import { CREATE_WORK, LONG_LEASE_MS, type WorkerScript } from '../support/script.js';
import { heirOf } from '../support/scripted-worker.js';
import { BACKENDS, HAS_QUEUES_IN_POSTGRES, dataSourceOf, makePlace } from '../support/scenario.js';
import { failStalled, letStall, takerOf } from '../support/stalled.js';

const QUICK = { attempts: 3, backoff: { baseMs: 10, capMs: 20 } };
const HOOKS = { name: 'hooks', bundle: { max: 50 } };

const requests = (count: number, tenantOf: (index: number) => string = () => 'acme') =>
  Array.from({ length: count }, (_, index) => ({
    name: 'hook',
    payload: { n: index },
    operationKey: `hook:${index}`,
    tenantId: tenantOf(index),
  }));

class HookPayload {
  @IsInt()
  n!: number;
}

describe.each(BACKENDS)('bundles, on %s', (backend) => {
  const apps = useApps();

  /** A producer whose operations are on the queue, in the given number of BullMQ jobs, and wait for a worker. */
  async function waiting(
    count: number,
    jobs: number,
    tenantOf?: (index: number) => string,
  ): Promise<{ app: INestApplicationContext; place: Place }> {
    const { app, place } = await apps.fresh(backend, { queues: [HOOKS] });
    await idempotentQueue(app, 'hooks').enqueueMany(requests(count, tenantOf));
    await eventually(
      () => bullQueue(app, 'hooks').getWaitingCount(),
      (found) => expect(found).toBe(jobs),
    );
    await marked(app);
    return { app, place };
  }

  /** Waits until all operations are noted as put. */
  const marked = (app: INestApplicationContext): Promise<unknown> =>
    eventually(
      () => dataSourceOf(app).query('SELECT FROM job_outcomes WHERE dispatches = 0'),
      (rows) => expect(rows).toEqual([]),
    );

  const work = (
    place: Place,
    handler: Handler,
    options: IdempotentProcessorOptions = {},
    workerOptions: object = {},
  ): Promise<INestApplicationContext> =>
    apps.beside(place, {
      queues: [HOOKS],
      providers: [
        processorOf('hooks', { effect: 'keyed', retry: QUICK, ...options }, handler, {
          ...SHORT_CLOCKS,
          ...workerOptions,
        }),
      ],
    });

  const allSettled = (app: INestApplicationContext, count: number): Promise<unknown[]> =>
    Promise.all(requests(count).map(({ operationKey }) => settled(app, operationKey)));

  const isEmpty = (app: INestApplicationContext, { failed = 0 } = {}): Promise<unknown> =>
    eventually(
      () => bullQueue(app, 'hooks').getJobCounts('waiting', 'active', 'delayed', 'failed'),
      (counts) => expect(counts).toMatchObject({ waiting: 0, active: 0, delayed: 0, failed }),
    );

  it('a backlog comes in a tenth as many jobs, and each operation is its own: tenant, job, result', async () => {
    const { app, place } = await waiting(100, 10, (index) => `tenant-${index % 3}`);
    const seen: unknown[] = [];
    const worker = await work(place, (job, { tenantId, operationKey, attempt }) => {
      seen.push({ id: job.id, name: job.name, data: job.data, tenantId, operationKey, attempt });
      return (job.data as { n: number }).n;
    });
    const outcomes = await Promise.all(
      requests(100, (index) => `tenant-${index % 3}`).map(({ tenantId, operationKey }) =>
        settled(worker, operationKey, tenantId),
      ),
    );
    expect(outcomes.map(({ result }) => result)).toEqual(requests(100).map(({ payload }) => payload.n));
    expect(seen).toHaveLength(100);
    expect(seen).toContainEqual({
      id: outcomes[7]?.jobId,
      name: 'hook',
      data: { n: 7 },
      tenantId: 'tenant-1',
      operationKey: 'hook:7',
      attempt: 1,
    });
    await isEmpty(app);
  });

  it('depths count operations, in metrics and on the command line', async () => {
    const registry = new Registry();
    const { app, place } = await apps.fresh(backend, {
      queues: [HOOKS],
      jobs: { metrics: [prometheusMetrics({ registry })] },
    });
    await idempotentQueue(app, 'hooks').enqueueMany(requests(100));
    await marked(app);
    expect(await bullQueue(app, 'hooks').getWaitingCount()).toBe(10);
    expect(jsonOf(await cliIn(place, 'status', '--json'))).toMatchObject({
      queues: [{ queue: 'hooks', bullmq: { waiting: 100, active: 0, delayed: 0, failed: 0 } }],
    });
    const depth = async (): Promise<unknown> =>
      parseScrape(await registry.metrics()).series['queue_depth{queue="hooks",state="waiting"}'];
    await eventually(depth, (waiting) => expect(waiting).toBe(100));
  });

  it('a lone operation has a job of its own', async () => {
    const { app } = await apps.fresh(backend, { queues: [HOOKS] });
    await enqueue(app, 'hooks', 'hook', { n: 1 }, 'hook:1');
    await eventually(
      () => bullQueue(app, 'hooks').getWaiting(),
      (jobs) => expect(jobs).toMatchObject([{ name: 'hook', data: { payload: { n: 1 } } }]),
    );
  });

  it('those that fail do so alone: by their payload, for good, or to be tried again at their own time', async () => {
    const { place } = await waiting(40, 10);
    const runs = new Map<string, number>();
    const worker = await work(
      place,
      (job, { operationKey, attempt }) => {
        runs.set(operationKey, (runs.get(operationKey) ?? 0) + 1);
        const { n } = job.data as HookPayload;
        if (n % 10 === 1) throw new PermanentError('gone');
        if (n % 10 === 2 && attempt < 3) throw new TransientError('busy');
        if (n % 10 === 3) throw new TransientError('always busy');
      },
      { payload: HookPayload },
    );
    await allSettled(worker, 40);
    const ends = await Promise.all(requests(40).map(({ operationKey }) => outcomeOf(worker, operationKey)));
    const expected = (n: number): object => {
      if (n % 10 === 1) return { status: 'dead', attempts: 1 };
      if (n % 10 === 2) return { status: 'completed', attempts: 3 };
      return n % 10 === 3 ? { status: 'dead', attempts: 3 } : { status: 'completed', attempts: 1 };
    };
    expect(ends).toMatchObject(requests(40).map(({ payload }) => expected(payload.n)));
    expect(ends.every((outcome) => runs.get(outcome?.operationKey ?? '') === outcome?.attempts)).toBe(true);
    const reasons = (await lettersOf(worker)).map(({ reason }) => reason).toSorted();
    expect(reasons).toEqual([...Array(4).fill('permanent_error'), ...Array(4).fill('retries_exhausted')]);
    // Those that were tried again had jobs of their own by then.
    await isEmpty(worker, { failed: 4 });
  });

  it('no more handlers run at once than the concurrency says, however many operations come in a bundle', async () => {
    const { place } = await waiting(200, 10);
    let running = 0;
    let most = 0;
    const worker = await work(
      place,
      async () => {
        running += 1;
        most = Math.max(most, running);
        await new Promise((resolve) => setTimeout(resolve, 2));
        running -= 1;
      },
      {},
      { concurrency: 7 },
    );
    await allSettled(worker, 200);
    expect(most).toBe(7);
  });

  it('what a worker has not begun within a second, another one runs', async () => {
    const { place } = await waiting(20, 10);
    const gate = new Gate();
    const held = await work(place, () => gate.pass(), {}, { concurrency: 1 });
    await gate.arrival;
    const worker = await work(place, () => 'free', {}, { concurrency: 5 });
    await eventually(
      async () => await Promise.all(requests(20).map((one) => outcomeOf(worker, one.operationKey))),
      (outcomes) => expect(outcomes.filter((outcome) => outcome?.result === 'free')).toHaveLength(19),
    );
    gate.open();
    await allSettled(held, 20);
  });

  it('a worker that stops gives back what it has not begun', async () => {
    const { place } = await waiting(40, 10);
    const gate = new Gate();
    const runs: string[] = [];
    const leaving = await work(
      place,
      (_job, { operationKey }) => (runs.push(operationKey), gate.pass()),
      {},
      { concurrency: 2 },
    );
    await gate.arrival;
    const closing = apps.close(leaving);
    const heir = await work(place, (_job, { operationKey }) => void runs.push(operationKey));
    await eventually(
      async () => runs,
      (all) => expect(new Set(all).size).toBe(40),
    );
    gate.open();
    await closing;
    await allSettled(heir, 40);
    expect(runs).toHaveLength(40);
  });

  it('a bundle of a worker that has died comes apart: each operation goes by itself, and none is run twice', async () => {
    const { app, place } = await waiting(20, 10);
    await letStall(place, bullQueue(app, 'hooks'), 10);
    const runs: string[] = [];
    const worker = await work(place, (_job, { operationKey }) => void runs.push(operationKey));
    await allSettled(worker, 20);
    expect(runs.toSorted()).toEqual(
      requests(20)
        .map(({ operationKey }) => operationKey)
        .toSorted(),
    );
    await isEmpty(worker);
  });

  it('BullMQ’s limit of stalls buries no bundle: its operations go on by themselves', async () => {
    const { app, place } = await waiting(20, 10);
    await failStalled(place, bullQueue(app, 'hooks'));
    const runs: string[] = [];
    const worker = await apps.beside(place, {
      queues: [HOOKS],
      providers: [
        processorOf('hooks', { effect: 'keyed' }, (_job, { operationKey }) => void runs.push(operationKey)),
      ],
      jobs: { recovery: { sweepMs: 100 } },
    });
    await allSettled(worker, 20);
    expect(runs).toHaveLength(20);
    expect(await lettersOf(worker)).toEqual([]);
    await isEmpty(worker);
  });

  it('the handler’s job can be put off, and says clearly what it cannot do without a job of BullMQ', async () => {
    const { place } = await waiting(20, 10);
    const refused: unknown[] = [];
    const putOff = new Set<string>();
    const worker = await work(place, async (job: Job, operation) => {
      if (operation.operationKey === 'hook:3')
        await job.updateProgress(50).catch((error: unknown) => refused.push(error));
      if (operation.operationKey === 'hook:4' && !putOff.has('hook:4')) {
        putOff.add('hook:4');
        operation.markNotApplied();
        await job.moveToDelayed(Date.now() + 50, job.token);
        throw new DelayedError();
      }
      return Object.keys(await job.getChildrenValues());
    });
    await allSettled(worker, 20);
    expect(refused).toHaveLength(1);
    expect(refused[0]).toBeInstanceOf(UsageError);
    expect(refused[0]).toMatchObject({
      message: expect.stringMatching(/job\.updateProgress\(\) needs a job of BullMQ/),
    });
    expect(await outcomeOf(worker, 'hook:4')).toMatchObject({ status: 'completed', attempts: 1, result: [] });
    await isEmpty(worker);
  });

  it('a queue that was lost is filled with bundles again, and one that was not with nothing', async () => {
    const { app, place } = await waiting(40, 10);
    const dispatch = app.get(DispatchService);
    const again = async (): Promise<void> => {
      await dataSourceOf(app).query('UPDATE job_outcomes SET dispatches = 1');
      await dispatch.redispatchUnsettled();
      await eventually(
        () => dataSourceOf(app).query('SELECT FROM job_outcomes WHERE dispatches < 2'),
        (rows) => expect(rows).toEqual([]),
      );
    };
    await again();
    expect(await bullQueue(app, 'hooks').getWaitingCount()).toBe(10);
    await bullQueue(app, 'hooks').obliterate({ force: true });
    await bullQueue(app, 'hooks').resume();
    await again();
    expect(await bullQueue(app, 'hooks').getWaitingCount()).toBe(10);
    const runs: string[] = [];
    const worker = await work(place, (_job, { operationKey }) => void runs.push(operationKey));
    await allSettled(worker, 40);
    expect(runs).toHaveLength(40);
  });

  it('single jobs do not wait in a worker that has no place for them while another one has', async () => {
    const { app, place } = await apps.fresh(backend, { queues: [HOOKS] });
    for (const { operationKey } of requests(8)) await enqueue(app, 'hooks', 'hook', {}, operationKey);
    const gate = new Gate();
    const held = await work(place, () => gate.pass(), {}, { concurrency: 1 });
    await gate.arrival;
    const worker = await work(place, () => 'free', {}, { concurrency: 1 });
    await eventually(
      () => Promise.all(requests(8).map((one) => outcomeOf(worker, one.operationKey))),
      (outcomes) => expect(outcomes.filter((outcome) => outcome?.result === 'free')).toHaveLength(7),
    );
    gate.open();
    await allSettled(held, 8);
  });

  it('plain jobs of an effect that must not be repeated, which a stopping worker had not begun, run elsewhere', async () => {
    const { app, place } = await apps.fresh(backend, { queues: [HOOKS] });
    const unrepeatable = { effect: 'unrepeatable', identify: identifyPlain } as const;
    for (const { operationKey } of requests(6)) await deliver(app, 'hooks', operationKey);
    const gate = new Gate();
    const leaving = await work(place, () => gate.pass(), unrepeatable, { concurrency: 1 });
    await gate.arrival;
    const closing = apps.close(leaving);
    gate.open();
    await closing;
    const heir = await work(place, () => 'done', unrepeatable);
    const outcomes = await Promise.all(requests(6).map((one) => settled(heir, one.operationKey)));
    expect(outcomes.map(({ status }) => status)).toEqual(Array(6).fill('completed'));
  });

  it('places that become free are filled, while others of their bundles are slow', async () => {
    const { place } = await waiting(100, 10);
    const gate = new Gate();
    const worker = await work(
      place,
      (job) => ((job.data as HookPayload).n === 0 ? gate.pass() : undefined),
      {},
      { concurrency: 10 },
    );
    await eventually(
      () => Promise.all(requests(100).map((one) => outcomeOf(worker, one.operationKey))),
      (outcomes) => expect(outcomes.filter((outcome) => outcome?.status === 'completed')).toHaveLength(99),
    );
    gate.open();
    await allSettled(worker, 100);
  });

  it('a worker that is paused begins nothing else of its bundles', async () => {
    const { place } = await waiting(40, 10);
    const gate = new Gate();
    let begun = 0;
    const processor = processorOf('hooks', { effect: 'keyed' }, () => ((begun += 1), gate.pass()), {
      ...SHORT_CLOCKS,
      concurrency: 2,
    });
    const app = await apps.beside(place, { queues: [HOOKS], providers: [processor] });
    await eventually(
      () => begun,
      (count) => expect(count).toBe(2),
    );
    const { worker } = app.get<WorkerHost>(processor);
    const pausing = worker.pause();
    gate.open();
    await pausing;
    expect(begun).toBe(2);
    await worker.resume();
    await allSettled(app, 40);
  });

  it('a limit that a handler sets holds for the rest of its bundle', async () => {
    const { place } = await waiting(40, 10);
    const calls: number[] = [];
    let setAt = 0;
    const late: { worker?: Worker } = {};
    const processor = processorOf(
      'hooks',
      { effect: 'keyed' },
      async (_job, operation) => {
        calls.push(performance.now());
        if (setAt > 0) return;
        setAt = performance.now();
        operation.markNotApplied();
        await late.worker?.rateLimit(700);
        throw new RateLimitError();
      },
      { ...SHORT_CLOCKS, concurrency: 1 },
    );
    const app = await apps.beside(place, { queues: [HOOKS], providers: [processor] });
    late.worker = app.get<WorkerHost>(processor).worker;
    await allSettled(app, 40);
    const sameBundle = calls.slice(1).filter((at) => at - setAt < 600);
    // BullMQ's own limit needs a limiter, so only what this worker had in hand is held back.
    expect(calls).toHaveLength(41);
    expect(sameBundle.length).toBeLessThan(40);
  });

  it('an entry that somebody made up never becomes a job, and the others of its bundle are done', async () => {
    const { app, place } = await waiting(40, 10);
    const [bundle] = (await bullQueue(app, 'hooks').getWaiting()) as [Job];
    await bundle.updateData({
      ...bundle.data,
      bundle: [
        null,
        ...bundle.data.bundle,
        { id: 'made-up', name: 'hook', data: { tenant: 'acme', key: 'made:up' } },
      ],
    });
    const database = dataSourceOf(app);
    await database.query(`CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
      RAISE EXCEPTION 'no letters now'; END$$`);
    await database.query('CREATE TRIGGER no BEFORE INSERT ON dead_letters EXECUTE FUNCTION refuse()');
    const keys = new Set<string>();
    // Plain jobs of this queue do run, but nobody puts any into a bundle.
    const worker = await work(place, (_job, { operationKey }) => keys.add(operationKey), {
      identify: identifyPlain,
    });
    await allSettled(worker, 40);
    expect([...keys]).not.toContain('made:up');
    expect(await stateOf(app, 'hooks', bundle)).not.toBe('completed');
    expect(await bullQueue(app, 'hooks').getJob('made-up')).toBeUndefined();
    await database.query('DROP TRIGGER no ON dead_letters');
    await eventually(
      () => lettersOf(app),
      (letters) => expect(letters).toHaveLength(2),
    );
    await isEmpty(worker);
  });

  it('a bundle that somebody else has ended does not keep its operations from being put again', async () => {
    const { app, place } = await waiting(40, 10);
    const taker = takerOf(place, 'hooks');
    for (let taken = 0; taken < 10; taken += 1) {
      const job = await taker.next();
      await job.moveToCompleted('what?', 'token', false);
    }
    await taker.close();
    await dataSourceOf(app).query('UPDATE job_outcomes SET dispatches = 1');
    await app.get(DispatchService).redispatchUnsettled();
    const worker = await work(place, () => 'done');
    await allSettled(worker, 40);
  });

  it('no bundle is larger than a job of its queue may be', async () => {
    const { app } = await apps.fresh(backend, {
      queues: [{ ...HOOKS, bullmq: { defaultJobOptions: { sizeLimit: 20_000 } } }],
    });
    await idempotentQueue(app, 'hooks').enqueueMany(requests(100));
    await marked(app);
    const jobs = await bullQueue(app, 'hooks').getWaiting();
    expect(jobs.length).toBeGreaterThan(10);
    expect(jobs.length).toBeLessThan(100);
    for (const { data } of jobs) expect(JSON.stringify(data).length).toBeLessThan(20_000);
  });

  it('what has ended in a bundle with an erased tenant is not brought back', async () => {
    const tenantOf = (index: number): string => (index < 10 ? 'acme' : 'globex');
    const { place } = await waiting(40, 10, tenantOf);
    let runs = 0;
    const worker = await work(place, () => (runs += 1));
    const all = requests(40, tenantOf);
    await Promise.all(all.map(({ operationKey, tenantId }) => settled(worker, operationKey, tenantId)));
    await isEmpty(worker);
    await dataSourceOf(worker).query(`DELETE FROM job_outcomes WHERE tenant_id = 'globex'`);
    await worker.get(RetentionService).erase({ tenantId: 'acme', actor: 'ada', note: 'asked for' });
    await isEmpty(worker);
    expect(runs).toBe(40);
    expect(await lettersOf(worker)).toEqual([]);
  });

  it('of a tenant that is erased, none is left in any bundle, and its neighbours run', async () => {
    const { app, place } = await waiting(20, 10, (index) => (index % 4 === 0 ? 'acme' : 'globex'));
    const erased = await app
      .get(RetentionService)
      .erase({ tenantId: 'acme', actor: 'ada', note: 'asked for' });
    expect(erased).toMatchObject({ operations: 5, jobs: 5 });
    const left = await bullQueue(app, 'hooks').getJobs(['waiting', 'delayed', 'active']);
    expect(JSON.stringify(left.map(({ data }) => data))).not.toContain('acme');
    const runs: string[] = [];
    const worker = await work(place, (_job, { tenantId }) => void runs.push(tenantId));
    await Promise.all(
      requests(20).flatMap(({ operationKey }, index) =>
        index % 4 === 0 ? [] : [settled(worker, operationKey, 'globex')],
      ),
    );
    expect(runs).toEqual(Array(15).fill('globex'));
    await isEmpty(worker);
  });

  it('a limit of BullMQ’s, which counts jobs, is refused', async () => {
    const processor = processorOf('hooks', { effect: 'keyed' }, () => 1, {
      limiter: { max: 1, duration: 1000 },
    });
    await expect(apps.fresh(backend, { queues: [HOOKS], providers: [processor] })).rejects.toThrow(
      /has a limiter, which counts jobs, but a job of queue "hooks" may carry up to 50 operations/,
    );
  });

  it.each([0, 1, 101, 2.5, '50'])('a bundle of at most %s is refused', async (max) => {
    const start = apps.fresh(backend, { queues: [{ name: 'hooks', bundle: { max: max as number } }] });
    await expect(start).rejects.toThrow(/bundle\.max is .*, but must be a whole number from 2 to 100/);
  });
});

describe.runIf(HAS_QUEUES_IN_POSTGRES)('bundles in the database of the ledger', () => {
  const apps = useApps();

  it('come with the transaction that enqueues their operations, or not at all', async () => {
    const processor = processorOf('hooks', { effect: 'keyed' }, (job) => (job.data as HookPayload).n);
    const { app } = await apps.fresh('postgres', {
      queues: [HOOKS],
      providers: [processor],
      jobs: { dispatch: { enabled: false } },
    });
    const queue = idempotentQueue(app, 'hooks');
    const waiting = (): Promise<number> => bullQueue(app, 'hooks').getWaitingCount();
    const { worker } = app.get<WorkerHost>(processor);
    await worker.pause();
    const within = (count: number, isKept: boolean): Promise<unknown> =>
      dataSourceOf(app)
        .transaction(async (transaction) => {
          await queue.enqueueMany(requests(count), { transaction });
          if (!isKept) throw new Error('rolled back');
        })
        .catch((error: Error) => expect(error.message).toBe('rolled back'));
    await within(300, false);
    expect(await waiting()).toBe(0);
    await within(300, true);
    expect(await waiting()).toBe(10);
    // A bundle that would lack those that exist already comes as single jobs.
    await within(400, true);
    expect(await waiting()).toBe(10 + 20 + 2);
    await worker.resume();
    const outcomes = await Promise.all(requests(400).map((one) => settled(app, one.operationKey)));
    expect(outcomes.map(({ result }) => result)).toEqual(requests(400).map(({ payload }) => payload.n));
  });
});

describe.each(BACKENDS)('bundles in processes that are killed, on %s', (backend) => {
  const apps = useApps();
  const workers = useProcesses();

  /** Notes of the handlers in table `work`: who has started, and who has done, what. */
  const notes = (app: INestApplicationContext, event: string): Promise<{ operation_key: string }[]> =>
    dataSourceOf(app).query('SELECT operation_key FROM work WHERE event = $1', [event]);

  async function begin(count: number, rest: Partial<WorkerScript> = {}) {
    const place = await makePlace(backend);
    const script: WorkerScript = {
      place,
      effect: 'keyed',
      act: 'work',
      leaseMs: LONG_LEASE_MS,
      bundle: 50,
      ...rest,
    };
    const heir = await heirOf(apps, script);
    const { app } = heir;
    await dataSourceOf(app).query(CREATE_WORK);
    const charges = requests(count).map((request, n) => ({ ...request, operationKey: `charge:${n}` }));
    const enqueue = (): Promise<unknown> => idempotentQueue(app, 'charges').enqueueMany(charges);
    const all = (): Promise<(Outcome | undefined)[]> =>
      Promise.all(charges.map(({ operationKey }) => outcomeOf(app, operationKey)));
    return { app, script, enqueue, all, takeOver: () => heir.takeOver() };
  }

  it('a worker killed in the middle of bundles: what had ended is not repeated, everything else is done', async () => {
    const { app, script, enqueue, all, takeOver } = await begin(100, { workMs: 100, concurrency: 4 });
    await enqueue();
    const victim = await workers.start(script);
    await eventually(
      () => notes(app, 'done'),
      (done) => expect(done.length).toBeGreaterThan(15),
    );
    victim.signal('SIGKILL');
    expect(await victim.exited).toBe('SIGKILL');
    await shortenLeases(app);
    const ended = (await all()).filter((outcome) => outcome?.status === 'completed');
    takeOver();
    await eventually(all, (outcomes) =>
      expect(outcomes.filter((outcome) => outcome?.status !== 'completed')).toEqual([]),
    );
    const repeated = (await all()).filter((outcome) => (outcome?.attempts ?? 0) > 1);
    // No more than were being handled; none of those that had ended before.
    expect(repeated.length).toBeLessThanOrEqual(4);
    const keys = new Set(ended.map((outcome) => outcome?.operationKey));
    expect(repeated.filter((outcome) => keys.has(outcome?.operationKey))).toEqual([]);
    expect(await lettersOf(app)).toEqual([]);
  });

  it('an operation that kills its worker is found, and its neighbours are done, none of them as one that crashed', async () => {
    const { app, script, enqueue, all } = await begin(100, { poison: 'charge:57' });
    await enqueue();
    const isOver = async (): Promise<boolean> => (await outcomeOf(app, 'charge:57'))?.status === 'dead';
    while (!(await isOver())) {
      const victim = await workers.start(script);
      await Promise.race([victim.exited, eventually(isOver, (over) => expect(over).toBe(true))]);
      await shortenLeases(app);
    }
    await eventually(all, (outcomes) =>
      expect(outcomes.filter((outcome) => outcome?.status !== 'completed')).toMatchObject([
        { operationKey: 'charge:57', status: 'dead' },
      ]),
    );
    expect((await all()).filter((outcome) => (outcome?.attempts ?? 0) > 1)).toMatchObject([
      { operationKey: 'charge:57' },
    ]);
    expect(await lettersOf(app)).toMatchObject([{ operation_key: 'charge:57', reason: 'crash_loop' }]);
  });

  it('a dispatcher killed between the put of bundles and its note: everything is done, once', async () => {
    const place = await makePlace(backend);
    const producer = await apps.beside(place, {
      queues: [{ name: 'charges', bundle: { max: 50 } }],
      jobs: { dispatch: { enabled: false } },
    });
    const charges = requests(40).map((request, n) => ({ ...request, operationKey: `charge:${n}` }));
    await idempotentQueue(producer, 'charges').enqueueMany(charges);
    const script: WorkerScript = {
      place,
      effect: 'keyed',
      act: 'die after put',
      leaseMs: LONG_LEASE_MS,
      bundle: 50,
    };
    const victim = await workers.start(script);
    expect(await victim.exited).toBe('SIGKILL');
    expect(await bullQueue(producer, 'charges').getWaitingCount()).toBe(10);
    expect(await outcomeOf(producer, 'charge:0')).toMatchObject({ status: 'pending' });

    const heir = await heirOf(apps, { ...script, act: 'work', concurrency: 4 });
    const { app } = heir;
    await dataSourceOf(app).query(CREATE_WORK);
    heir.takeOver();
    await Promise.all(charges.map(({ operationKey }) => settled(app, operationKey)));
    const done = (await notes(app, 'done')).map((note) => note.operation_key);
    expect(new Set(done).size).toBe(40);
    expect(done).toHaveLength(40);
  });

  it('two workers and one bundle, whose first one is paused past lease and lock: each is done once', async () => {
    const { app, script, enqueue, all, takeOver } = await begin(20, {
      workMs: 400,
      concurrency: 1,
      leaseMs: 3000,
    });
    await enqueue();
    const sleeper = await workers.start(script);
    await eventually(
      () => notes(app, 'started'),
      (started) => expect(started).toHaveLength(1),
    );
    sleeper.signal('SIGSTOP');
    takeOver();
    await eventually(all, (outcomes) =>
      expect(outcomes.filter((outcome) => outcome?.status !== 'completed')).toEqual([]),
    );
    sleeper.signal('SIGCONT');
    const [held] = await notes(app, 'started');
    const done = (await notes(app, 'done')).map((note) => note.operation_key);
    // Only what the sleeper was at when it was paused may have been begun twice.
    expect(done.filter((key) => key !== held?.operation_key)).toHaveLength(19);
    expect((await all()).filter((outcome) => (outcome?.attempts ?? 0) > 1).length).toBeLessThanOrEqual(1);
  });
});
