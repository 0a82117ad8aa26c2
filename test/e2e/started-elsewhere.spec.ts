import type { INestApplicationContext } from '@nestjs/common';
import { type Job, type JobsOptions, Queue, Worker } from 'bullmq';
import { type IdempotentProcessorOptions, Reconciliation } from 'nestjs-idempotent-jobs';
import { describe, expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { bullQueue, lettersOf, outcomeOf, settled } from '../support/ledger.js';
import type { Place } from '../support/place.js';
import { Gate, identifyPlain, processorOf, reconcilingProcessorOf } from '../support/processors.js';
import { BACKENDS, dataSourceOf, makePlace } from '../support/scenario.js';

const TOKEN = 'of the plain worker';

describe.each(BACKENDS)('a plain job that a plain worker has started, on %s', (backend) => {
  const apps = useApps();

  /** What becomes of a job in the hands of a plain worker. */
  type Fate = (job: Job) => Promise<unknown>;
  const failed: Fate = (job) => job.moveToFailed(new Error('no answer'), TOKEN);
  const putOff: Fate = (job) => job.moveToDelayed(Date.now() + 1, TOKEN);
  const killed: Fate = async () => undefined;
  /** With its counters reset, the stack trace of its failure is what is left; BullMQ in Postgres keeps not even that. */
  const retriedByHand: Fate = async (job) => {
    const isReset = backend === 'redis';
    await job.moveToFailed(new Error('no answer'), TOKEN);
    await job.retry('failed', { resetAttemptsMade: isReset, resetAttemptsStarted: isReset });
  };

  /** A place with a plain job that met its fate there. */
  async function startedBy(fate: Fate, opts: JobsOptions = { attempts: 3 }): Promise<Place> {
    const place = await makePlace(backend);
    const { connection, prefix } = place;
    const queue = new Queue('charges', { connection, prefix });
    await queue.add('charge', { tenant: 'acme', key: 'charge:1' }, opts);
    const worker = new Worker('charges', null, {
      connection,
      prefix,
      // One that dies leaves it behind; the others hold it for as long as they need.
      lockDuration: fate === killed ? 500 : 600_000,
    });
    const job = await eventually(
      () => worker.getNextJob(TOKEN, { block: false }),
      (next) => expect(next).toBeDefined(),
    );
    if (job !== undefined) await fate(job);
    await Promise.all([worker.close(), queue.close()]);
    return place;
  }

  async function takenOver(
    place: Place,
    options: IdempotentProcessorOptions,
    rest: object = {},
  ): Promise<{ app: INestApplicationContext; runs: number[] }> {
    const runs: number[] = [];
    const processor = processorOf('charges', { identify: identifyPlain, ...options }, (_job, operation) => {
      runs.push(operation.attempt);
    });
    const app = await apps.beside(place, { queues: ['charges'], providers: [processor], ...rest });
    return { app, runs };
  }

  it.each([
    ['failed, and is tried again', failed, { attempts: 3 }],
    ['was put off', putOff, {}],
    ['died with its worker', killed, {}],
    ['failed, and was retried by hand', retriedByHand, { attempts: 1 }],
  ])('unrepeatable: is in doubt when it %s', async (_title, fate, opts) => {
    const { app, runs } = await takenOver(await startedBy(fate, opts), { effect: 'unrepeatable' });
    expect(
      await eventually(
        () => outcomeOf(app, 'charge:1'),
        (outcome) => expect(outcome).toMatchObject({ status: 'in_doubt' }),
      ),
    ).toMatchObject({ attempts: 1 });
    expect(await lettersOf(app)).toMatchObject([
      { reason: 'in_doubt', operation_key: 'charge:1', payload: { tenant: 'acme', key: 'charge:1' } },
    ]);
    expect(runs).toEqual([]);
  });

  it.each([
    ['applied: is not run', () => Reconciliation.applied('charged'), 0, 'completed'],
    ['not applied: is run', () => Reconciliation.notApplied(), 1, 'completed'],
  ])('reconciled: is asked about, and where it was %s', async (_title, verdict, calls, status) => {
    const place = await startedBy(failed);
    let asked = 0;
    let runs = 0;
    const processor = reconcilingProcessorOf(
      'charges',
      { effect: 'reconciled', identify: identifyPlain, reconcile: { afterMs: [1] } },
      () => (runs += 1),
      () => {
        asked += 1;
        return verdict();
      },
    );
    const app = await apps.beside(place, { queues: ['charges'], providers: [processor] });
    expect(await settled(app, 'charge:1')).toMatchObject({ status });
    expect(asked).toBe(1);
    expect(runs).toBe(calls);
  });

  it.each(['natural', 'transactional', 'keyed'] as const)('%s: is run', async (effect) => {
    const { app, runs } = await takenOver(await startedBy(failed), { effect });
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'completed' });
    expect(runs).toEqual([1]);
  });

  it('is run where the processor says so', async () => {
    const options = { effect: 'unrepeatable', startedElsewhere: 'run' } as const;
    const { app, runs } = await takenOver(await startedBy(failed), options);
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'completed' });
    expect(runs).toEqual([1]);
  });

  it('is no such job when the ledger was out of reach at its first deliveries', async () => {
    const place = await makePlace(backend);
    const { app, runs } = await takenOver(place, { effect: 'unrepeatable' });
    const ledger = dataSourceOf(app);
    await ledger.query('ALTER TABLE job_outcomes RENAME TO away');
    const job = await bullQueue(app, 'charges').add('charge', { tenant: 'acme', key: 'charge:1' });
    await eventually(
      () => bullQueue(app, 'charges').getJob(job.id as string),
      (seen) => expect(seen?.attemptsStarted).toBeGreaterThan(2),
    );
    expect((await bullQueue(app, 'charges').getJobLogs(job.id as string)).logs).toEqual([]);
    await ledger.query('ALTER TABLE away RENAME TO job_outcomes');
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'completed', attempts: 1 });
    expect(runs).toEqual([1]);
  });

  it('is no such job when a dependency has held it back', async () => {
    const place = await makePlace(backend);
    const gate = new Gate();
    const runs: string[] = [];
    const processor = processorOf(
      'charges',
      { effect: 'unrepeatable', identify: identifyPlain, dependency: 'gateway' },
      async (_job, operation) => {
        runs.push(operation.operationKey);
        await gate.pass();
      },
    );
    const app = await apps.beside(place, {
      queues: ['charges'],
      providers: [processor],
      jobs: { dependencies: { gateway: { maxConcurrent: 1 } } },
    });
    const queue = bullQueue(app, 'charges');
    await queue.add('charge', { tenant: 'acme', key: 'charge:1' });
    await gate.arrival;
    const held = await queue.add('charge', { tenant: 'acme', key: 'charge:2' });
    await eventually(
      () => queue.getJob(held.id as string),
      (job) => expect(job?.attemptsStarted).toBeGreaterThan(1),
    );
    gate.open();
    expect(await settled(app, 'charge:2')).toMatchObject({ status: 'completed', attempts: 1 });
    expect(runs).toEqual(['charge:1', 'charge:2']);
  });

  it('is in doubt whatever stands in its log, its progress and its error', async () => {
    const words = [1, 2].flatMap((start) => [
      `nestjs-idempotent-jobs: put off before anything of it was claimed or run (start ${start})`,
      `start ${start}`,
    ]);
    const place = await startedBy(async (job) => {
      for (const line of words) await job.log(line);
      await job.updateProgress({ 'nestjs-idempotent-jobs': 'start 1' });
      await putOff(job);
    });
    const { app, runs } = await takenOver(place, { effect: 'unrepeatable' });
    await eventually(
      () => outcomeOf(app, 'charge:1'),
      (outcome) => expect(outcome).toMatchObject({ status: 'in_doubt' }),
    );
    expect(runs).toEqual([]);
  });

  it('is in doubt also when the ledger is out of reach at first', async () => {
    const place = await startedBy(failed);
    const admin = await apps.beside(place, { queues: ['charges'] });
    await dataSourceOf(admin).query('ALTER TABLE job_outcomes RENAME TO away');
    const { app, runs } = await takenOver(place, { effect: 'unrepeatable' }, { jobs: { doctor: 'off' } });
    await eventually(
      // A job that goes from one state to the next may be in neither list.
      async () => (await bullQueue(app, 'charges').getJobs())[0]?.attemptsStarted,
      (started) => expect(started).toBeGreaterThan(2),
    );
    await dataSourceOf(admin).query('ALTER TABLE away RENAME TO job_outcomes');
    await eventually(
      () => outcomeOf(app, 'charge:1'),
      (outcome) => expect(outcome).toMatchObject({ status: 'in_doubt' }),
    );
    expect(runs).toEqual([]);
  });
});
