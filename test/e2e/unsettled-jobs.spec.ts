import type { INestApplicationContext, Provider } from '@nestjs/common';
import { type Job, Worker } from 'bullmq';
import { Reconciliation, RetryLaterError } from 'nestjs-idempotent-jobs';
import type { Effect } from 'nestjs-idempotent-jobs/types';
import { afterEach, describe, expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { bullQueue, enqueue, lettersOf, outcomeOf, settled, stateOf } from '../support/ledger.js';
import type { Place } from '../support/place.js';
import { identifyPlain, processorOf, reconcilingProcessorOf } from '../support/processors.js';
import { BACKENDS, dataSourceOf } from '../support/scenario.js';

/** Often enough for a test. */
const SWEEPING = { recovery: { sweepMs: 100 } };

/** How a worker of another kind ends the job that it has taken. */
const completes = async (): Promise<string> => 'done by a plain worker';
const fails = async (): Promise<never> => {
  throw new Error('failed in a plain worker');
};

describe.each(BACKENDS)('operations whose job has ended without them, on %s', (backend) => {
  const apps = useApps();
  const workers: Worker[] = [];
  afterEach(async () => {
    await Promise.all(workers.splice(0).map((worker) => worker.close()));
  });

  /** What processes a job the first time puts it off; every later time it succeeds. */
  const chargesOf = (effect: Effect, story: string[]): Provider => {
    const options = { effect, identify: identifyPlain };
    const handler = (): unknown => {
      story.push('called');
      if (story.length === 1) throw new RetryLaterError(1_200);
      return 'done';
    };
    const reconcile = (): unknown => {
      story.push('asked');
      return Reconciliation.notApplied();
    };
    return effect === 'reconciled'
      ? reconcilingProcessorOf('charges', { ...options, reconcile: { lateArrivalMs: 0 } }, handler, reconcile)
      : processorOf('charges', options, handler);
  };

  /** A job that has failed once, and whose application has gone before its next attempt. */
  const failedOnce = async (effect: Effect, story: string[]): Promise<{ place: Place; job: Job }> => {
    const { app, place } = await apps.fresh(backend, {
      queues: ['charges'],
      providers: [chargesOf(effect, story)],
    });
    const job = await bullQueue(app, 'charges').add('charge', { tenant: 'acme', key: 'charge:1' });
    await eventually(
      () => stateOf(app, 'charges', job),
      (state) => expect(state).toBe('delayed'),
    );
    await apps.close(app);
    return { place, job };
  };

  /** The job in the hands of a worker that knows no ledger. */
  const endByPlainWorker = async (place: Place, end: () => Promise<unknown>): Promise<void> => {
    const { connection, prefix } = place;
    const worker = new Worker('charges', end, { connection, prefix });
    workers.push(worker);
    await new Promise<void>((resolve) => {
      worker.on('completed', () => resolve());
      worker.on('failed', () => resolve());
    });
    await worker.close();
  };

  const comeBack = (place: Place, effect: Effect, story: string[]): Promise<INestApplicationContext> =>
    apps.beside(place, { queues: ['charges'], providers: [chargesOf(effect, story)], jobs: SWEEPING });

  describe.each([
    ['completed', completes],
    ['failed', fails],
  ] as const)('%s by a plain worker', (_how, end) => {
    it.each(['natural', 'keyed'] as const)('run again, with effect %s', async (effect) => {
      const story: string[] = [];
      const { place, job } = await failedOnce(effect, story);
      await endByPlainWorker(place, end);
      const app = await comeBack(place, effect, story);
      expect(await settled(app, 'charge:1')).toMatchObject({
        status: 'completed',
        result: 'done',
        attempts: 2,
      });
      expect(story).toEqual(['called', 'called']);
      await eventually(
        () => stateOf(app, 'charges', job),
        (state) => expect(state).toBe('completed'),
      );
      expect(await lettersOf(app)).toEqual([]);
    });

    it.each(['unrepeatable', 'transactional'] as const)(
      'in doubt, with effect %s: nobody has recorded what the other worker did',
      async (effect) => {
        const story: string[] = [];
        const { place } = await failedOnce(effect, story);
        await endByPlainWorker(place, end);
        const app = await comeBack(place, effect, story);
        expect(await settled(app, 'charge:1')).toMatchObject({ status: 'in_doubt' });
        expect(story).toEqual(['called']);
        expect(await lettersOf(app)).toMatchObject([
          { reason: 'in_doubt', payload: { tenant: 'acme', key: 'charge:1' } },
        ]);
      },
    );

    it('asked about first, with effect reconciled', async () => {
      const story: string[] = [];
      const { place } = await failedOnce('reconciled', story);
      await endByPlainWorker(place, end);
      const app = await comeBack(place, 'reconciled', story);
      expect(await settled(app, 'charge:1')).toMatchObject({ status: 'completed' });
      expect(story).toEqual(['called', 'asked', 'called']);
    });
  });

  it.each(['natural', 'unrepeatable'] as const)(
    'gone from the queue, with effect %s: in doubt, with a letter',
    async (effect) => {
      const story: string[] = [];
      const { place, job } = await failedOnce(effect, story);
      const other = await apps.beside(place, { queues: ['charges'] });
      await bullQueue(other, 'charges').remove(job.id as string);
      const app = await comeBack(place, effect, story);
      expect(await settled(app, 'charge:1')).toMatchObject({ status: 'in_doubt' });
      expect(await lettersOf(app)).toMatchObject([{ reason: 'in_doubt', payload: null }]);
      expect(story).toEqual(['called']);
    },
  );

  it('left running by a worker that has vanished: taken over when its lease has ended', async () => {
    const story: string[] = [];
    const { place } = await failedOnce('natural', story);
    await endByPlainWorker(place, completes);
    const other = await apps.beside(place, { queues: ['charges'] });
    await dataSourceOf(other).query(
      `UPDATE job_outcomes SET status = 'running', attempts = attempts + 1, available_at = NULL,
         lease_expires_at = clock_timestamp() - interval '1 second'`,
    );
    const app = await comeBack(place, 'natural', story);
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'completed', result: 'done' });
  });

  it('brought back by a person, and never claimed since: run again, as doubtful', async () => {
    const story: string[] = [];
    const { place } = await failedOnce('keyed', story);
    await endByPlainWorker(place, completes);
    const other = await apps.beside(place, { queues: ['charges'] });
    await dataSourceOf(other).query(
      `UPDATE job_outcomes SET status = 'pending', repeatable_until = NULL, available_at = NULL`,
    );
    const app = await comeBack(place, 'keyed', story);
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'completed', result: 'done' });
    expect(story).toEqual(['called', 'called']);
  });

  it('those that still wait on their queue, for a person or for nobody are left alone', async () => {
    const story: string[] = [];
    const { place, job } = await failedOnce('natural', story);
    const waiting = processorOf('refunds', { effect: 'natural', identify: identifyPlain }, () => {
      throw new RetryLaterError(3_600_000);
    });
    const first = await apps.beside(place, { queues: ['charges', 'refunds'], providers: [waiting] });
    await bullQueue(first, 'refunds').add('refund', { tenant: 'acme', key: 'refund:1' });
    await eventually(
      () => outcomeOf(first, 'refund:1'),
      (outcome) => expect(outcome).toMatchObject({ status: 'retrying' }),
    );
    await enqueue(first, 'charges', 'charge', { ledger: true }, 'charge:ledger');
    // As if it had been due long ago: its job waits all the same.
    await dataSourceOf(first).query(
      `UPDATE job_outcomes SET available_at = clock_timestamp() - interval '1 hour' WHERE operation_key = 'refund:1'`,
    );
    await apps.close(first);
    await bullQueue(await apps.beside(place, { queues: ['charges'] }), 'charges').remove(job.id as string);
    const app = await apps.beside(place, {
      queues: ['charges', 'refunds'],
      providers: [waiting, chargesOf('natural', story)],
      jobs: SWEEPING,
    });
    // The sweep has been here.
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'in_doubt' });
    expect(await settled(app, 'charge:ledger')).toMatchObject({ status: 'completed' });
    expect(await outcomeOf(app, 'refund:1')).toMatchObject({ status: 'retrying' });
    expect(await lettersOf(app)).toHaveLength(1);
  });

  it('many at once are all found', async () => {
    const { app, place } = await apps.fresh(backend, {
      queues: ['charges'],
      providers: [
        processorOf('charges', { effect: 'natural', identify: identifyPlain }, () => {
          throw new RetryLaterError(3_600_000);
        }),
      ],
    });
    const keys = Array.from({ length: 220 }, (_none, number) => `charge:${number}`);
    await bullQueue(app, 'charges').addBulk(
      keys.map((key) => ({ name: 'charge', data: { tenant: 'acme', key } })),
    );
    await eventually(
      () => bullQueue(app, 'charges').getJobCounts('delayed'),
      (counts) => expect(counts).toEqual({ delayed: 220 }),
    );
    await apps.close(app);
    const other = await apps.beside(place, { queues: ['charges'] });
    await bullQueue(other, 'charges').obliterate({ force: true });
    await dataSourceOf(other).query('UPDATE job_outcomes SET available_at = clock_timestamp()');
    const next = await apps.beside(place, {
      queues: ['charges'],
      providers: [processorOf('charges', { effect: 'natural', identify: identifyPlain }, () => 'done')],
      jobs: SWEEPING,
    });
    await eventually(
      () => lettersOf(next),
      (letters) => expect(letters).toHaveLength(220),
    );
  });
});
