import { UnrecoverableError, Worker } from 'bullmq';
import type { INestApplicationContext } from '@nestjs/common';
import { TransientError } from 'nestjs-idempotent-jobs';
import { UsageError } from 'nestjs-idempotent-jobs/errors';
import { DispatchService } from 'nestjs-idempotent-jobs/operate';
import { Client } from 'pg';
import { describe, expect, it, vi } from 'vitest';
import { useApps } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { Flood } from '../support/flood.js';
import { bullQueue, enqueue, idempotentQueue, outcomeOf, settled } from '../support/ledger.js';
import type { Place } from '../support/place.js';
import { Gate, processorOf } from '../support/processors.js';
import { BACKENDS, dataSourceOf, makePlace } from '../support/scenario.js';

/** Long enough for what a test does before. */
const SOON = { redispatchAfterMs: 1000, pollMs: 100 };
/** The dispatcher's own clock is left out of it. */
const NEVER = { redispatchAfterMs: 3_600_000, pollMs: 600_000 };

/** The texts of all statements that are sent while `work` runs, by whichever connection. */
async function textsDuring(work: () => Promise<void>): Promise<string[]> {
  const query = vi.spyOn(Client.prototype, 'query');
  try {
    await work();
    const asked = query.mock.calls.map(([first]) => first as string | { text: string });
    return asked.map((one) => (typeof one === 'string' ? one : one.text));
  } finally {
    query.mockRestore();
  }
}

describe.each(BACKENDS)('putting operations on their queue again, on %s', (backend) => {
  const apps = useApps();

  /** As a dashboard would: the job ends, and the ledger hears nothing of it. */
  const endByHand = async (place: Place, how: 'failed' | 'completed'): Promise<void> => {
    const worker = new Worker('charges', undefined, {
      connection: place.connection,
      prefix: place.prefix,
      autorun: false,
    });
    const job = await eventually(
      () => worker.getNextJob('by-hand', { block: false }),
      (next) => expect(next).toBeDefined(),
    );
    if (how === 'failed') await job?.moveToFailed(new UnrecoverableError('by hand'), 'by-hand', false);
    else await job?.moveToCompleted('by hand', 'by-hand', false);
    await worker.close();
  };
  const waiting = (app: INestApplicationContext, count: number): Promise<number> =>
    eventually(
      () => bullQueue(app, 'charges').getWaitingCount(),
      (jobs) => expect(jobs).toBe(count),
    );

  it.each(['failed', 'completed'] as const)(
    'an operation whose job somebody marked as %s in BullMQ runs all the same, once',
    async (how) => {
      const { app, place } = await apps.fresh(backend, { queues: ['charges'], jobs: { dispatch: NEVER } });
      await enqueue(app, 'charges', 'charge', {}, 'charge:1');
      await waiting(app, 1);
      await endByHand(place, how);
      expect(await bullQueue(app, 'charges').getJobCounts(how)).toEqual({ [how]: 1 });
      expect(await outcomeOf(app, 'charge:1')).toMatchObject({ status: 'pending' });

      // As if the time of its job were over.
      await dataSourceOf(app).query('UPDATE job_outcomes SET dispatch_due_at = clock_timestamp()');
      let runs = 0;
      const processor = processorOf('charges', {}, () => (runs += 1));
      const heir = await apps.beside(place, {
        queues: ['charges'],
        jobs: { dispatch: SOON },
        providers: [processor],
      });
      expect(await settled(heir, 'charge:1')).toMatchObject({ status: 'completed', attempts: 1 });
      expect(runs).toBe(1);
    },
  );

  it('a lost queue is filled again at once, with delays, priorities and deadlines, by whichever process dispatches', async () => {
    const gate = new Gate();
    const processor = processorOf('charges', { effect: 'natural' }, () => gate.pass(), { concurrency: 1 });
    const { app, place } = await apps.fresh(backend, {
      queues: ['charges'],
      jobs: { dispatch: NEVER },
    });
    const asker = await apps.beside(place, { queues: [], jobs: { dispatch: { enabled: false } } });
    const queue = idempotentQueue(app, 'charges');
    const ask = (key: string, options: object) =>
      queue.enqueue('charge', {}, { tenantId: 'acme', operationKey: key, ...options });
    await ask('charge:plain', {});
    const urgent = await ask('charge:urgent', { priority: 5 });
    const deadline = new Date('2100-01-01T00:00:00.000Z');
    const late = await ask('charge:late', { delayMs: 3_600_000, deadline });
    const bull = bullQueue(app, 'charges');
    const isThere = async (id: string): Promise<boolean> => (await bull.getJob(id)) !== undefined;
    await eventually(
      async () => [await isThere(urgent.jobId), await isThere(late.jobId)],
      (found) => expect(found).toEqual([true, true]),
    );
    await bull.obliterate({ force: true });
    expect([await isThere(urgent.jobId), await isThere(late.jobId)]).toEqual([false, false]);

    const service = asker.get(DispatchService);
    const expected = { operations: 3, withoutPayload: 0 };
    expect(await service.redispatchUnsettled({ queue: 'charges', dryRun: true })).toEqual(expected);
    expect(await isThere(urgent.jobId)).toBe(false);
    expect(await service.redispatchUnsettled({ queue: 'charges', olderThanMs: 60_000 })).toEqual({
      operations: 0,
      withoutPayload: 0,
    });
    expect(await service.redispatchUnsettled({ queue: 'charges' })).toEqual(expected);
    const found = await eventually(
      () => Promise.all([bull.getJob(urgent.jobId), bull.getJob(late.jobId)]),
      (jobs) => expect(jobs).not.toContain(undefined),
    );
    expect(found[0]?.opts.priority).toBe(5);
    expect(found[1]?.opts.delay).toBeGreaterThan(3_500_000);
    expect(found[1]?.data).toMatchObject({ operation: { deadlineAt: deadline.toISOString() } });

    gate.open();
    await apps.beside(place, { queues: ['charges'], providers: [processor] });
    expect(await settled(app, 'charge:plain')).toMatchObject({ status: 'completed' });
    expect(await settled(app, 'charge:urgent')).toMatchObject({ status: 'completed' });
    expect(await outcomeOf(app, 'charge:late')).toMatchObject({ status: 'pending', attempts: 0 });
  });

  it('beside live workers, again and again, nothing runs twice', async () => {
    const count = 300;
    const flood = await Flood.begin(apps, await makePlace(backend), count);
    const service = flood.app.get(DispatchService);
    const reports: number[] = [];
    // Where it stands still until the test waits for its end.
    const most = count * 0.8;
    do {
      const before = flood.ran;
      reports.push((await service.redispatchUnsettled()).operations);
      flood.goOn();
      await eventually(
        () => flood.ran,
        (ran) => expect(ran).toBeGreaterThan(Math.min(before, most)),
      );
    } while (flood.ran <= most);
    expect(reports[0]).toBeGreaterThan(0);
    await flood.expectAllOnce();
  });

  it('what runs under a live lease is left alone, and what was delivered without a row is counted', async () => {
    const gate = new Gate();
    const processor = processorOf(
      'charges',
      { effect: 'natural', retry: { backoff: { baseMs: 600_000, capMs: 600_000 } } },
      async (job) => {
        if (job.name === 'hold') return gate.pass();
        throw new TransientError('not now');
      },
    );
    const { app } = await apps.fresh(backend, {
      queues: ['charges'],
      providers: [processor],
      jobs: { dispatch: NEVER },
    });
    await enqueue(app, 'charges', 'hold', {}, 'hold:1');
    await idempotentQueue(app, 'charges').enqueue(
      'charge',
      {},
      { tenantId: 'acme', operationKey: 'charge:1', durability: 'queue' },
    );
    await gate.arrival;
    await eventually(
      () => outcomeOf(app, 'charge:1'),
      (outcome) => expect(outcome).toMatchObject({ status: 'retrying' }),
    );
    const service = app.get(DispatchService);
    expect(await service.redispatchUnsettled()).toEqual({ operations: 0, withoutPayload: 1 });
    await dataSourceOf(app).query(
      `UPDATE job_outcomes SET lease_expires_at = clock_timestamp() - interval '1 second' WHERE operation_key = 'hold:1'`,
    );
    expect(await service.redispatchUnsettled({ dryRun: true })).toEqual({
      operations: 1,
      withoutPayload: 1,
    });
    gate.open();
  });

  it('thousands are found by many statements, which may each have another connection', async () => {
    const { app } = await apps.fresh(backend, {
      queues: ['charges'],
      jobs: { dispatch: { enabled: false } },
    });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    const add = (from: number, to: number): Promise<unknown> =>
      dataSourceOf(app).query(
        `INSERT INTO job_outcomes (tenant_id, operation_key, origin, queue, job_name, job_id, fingerprint, status, payload, dispatch_due_at, dispatches)
         SELECT 'tenant ' || n % 3, 'charge:' || n, 'job', CASE WHEN n % 2 = 0 THEN 'charges' ELSE 'refunds' END, 'charge', 'job ' || n,
           repeat('0', 64), 'pending', '{}', clock_timestamp() + interval '1 hour', 3
         FROM generate_series($1::integer, $2::integer) AS n`,
        [from, to],
      );
    await add(1, 4000);
    const service = app.get(DispatchService);
    const texts = await textsDuring(async () => {
      expect(await service.redispatchUnsettled({ dryRun: true })).toMatchObject({ operations: 4001 });
      expect(await service.redispatchUnsettled({ olderThanMs: 60_000 })).toMatchObject({ operations: 0 });
      expect(await service.redispatchUnsettled({ queue: 'charges' })).toMatchObject({ operations: 2001 });
    });
    // A transaction or a cursor would need one connection for all of them.
    expect(texts.filter((text) => /^\s*(?:BEGIN|DECLARE|FETCH)/i.test(text))).toEqual([]);
    const made = texts.filter((text) => text.includes('UPDATE'));
    expect(made.length).toBeGreaterThanOrEqual(4);
    const rows = await dataSourceOf(app).query(
      `SELECT queue, count(*)::integer FROM job_outcomes
       WHERE dispatch_due_at <= clock_timestamp() AND dispatches <= 1 GROUP BY queue`,
    );
    expect(rows).toEqual([{ queue: 'charges', count: 2001 }]);

    // Of a small table, Postgres rather reads the whole.
    await add(4001, 44_000);
    await dataSourceOf(app).query('ANALYZE job_outcomes');
    const page = texts.find((text) => text.includes('last_tenant')) as string;
    const plan = await dataSourceOf(app).query<{ 'QUERY PLAN': string }[]>(`EXPLAIN ${page}`, [
      null,
      '0',
      0,
      'tenant 1',
      'charge:1',
    ]);
    const lines = plan.map((line) => line['QUERY PLAN']).join('\n');
    expect(lines).toMatch(
      /Index Scan using job_outcomes_(?:operation_unique|p\d_tenant_id_operation_key_key) on job_outcomes/,
    );
    expect(lines).not.toContain('Seq Scan');
  });

  it('a queue that nobody knows, or an age that is none, is refused and changes nothing', async () => {
    const { app, place } = await apps.fresh(backend, { queues: ['charges'], jobs: { dispatch: NEVER } });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    await waiting(app, 1);
    const dueAt = (): Promise<unknown> =>
      dataSourceOf(app).query('SELECT dispatch_due_at::text, dispatches FROM job_outcomes');
    const before = await eventually(dueAt, (rows) => expect(rows).toMatchObject([{ dispatches: 1 }]));
    const service = app.get(DispatchService);
    for (const wrong of [
      { queue: 'chargse' },
      { queue: '' },
      { olderThanMs: -1 },
      { olderThanMs: Number.NaN },
      { olderThanMs: '5' as never },
      { dryRun: 'yes' as never },
    ])
      await expect(service.redispatchUnsettled(wrong)).rejects.toThrow(UsageError);
    await expect(service.redispatchUnsettled({ queue: 'chargse' })).rejects.toThrow(
      /registered a queue "chargse"/,
    );
    expect(await dueAt()).toEqual(before);

    // Known by its rows alone, where it is not registered.
    const elsewhere = await apps.beside(place, { queues: [] });
    expect(await elsewhere.get(DispatchService).redispatchUnsettled({ queue: 'charges' })).toEqual({
      operations: 1,
      withoutPayload: 0,
    });
  });
});
