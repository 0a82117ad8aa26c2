import type { INestApplicationContext } from '@nestjs/common';
import { PermanentError } from 'nestjs-idempotent-jobs';
import { DeadLetterService, type Redrive } from 'nestjs-idempotent-jobs/dead-letters';
import { describe, expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { idempotentQueue, lettersOf } from '../support/ledger.js';
import type { Place } from '../support/place.js';
import { useProcesses } from '../support/processes.js';
import { Gate, processorOf } from '../support/processors.js';
import { BACKENDS, dataSourceOf } from '../support/scenario.js';

const BY = { actor: 'ada', note: 'the bank is open again' };

/** What the bank does with an order. */
type Bank = (order: number) => void | Promise<void>;

describe.each(BACKENDS)('a redrive of many, on %s', (backend) => {
  const apps = useApps();
  const processes = useProcesses();

  /** An application with that many dead charges. */
  async function withLetters(
    letters: number,
    { queues = ['charges'], jobs = {} }: { queues?: string[]; jobs?: object } = {},
  ): Promise<{
    app: INestApplicationContext;
    place: Place;
    bank: { act: Bank };
    runs: number[];
    service: DeadLetterService;
  }> {
    const runs: number[] = [];
    const bank: { act: Bank } = {
      act: () => {
        throw new PermanentError('the bank is closed');
      },
    };
    const processors = queues.map((queue) =>
      processorOf(queue, { effect: 'keyed' }, (job) => {
        const { order } = job.data as { order: number };
        runs.push(order);
        return bank.act(order);
      }),
    );
    const { app, place } = await apps.fresh(backend, { queues, providers: processors, jobs });
    for (const queue of queues) {
      await idempotentQueue(app, queue).enqueueMany(
        Array.from({ length: letters }, (_, order) => ({
          name: 'charge',
          payload: { order },
          operationKey: `${queue}:${order}`,
          tenantId: order % 2 === 0 ? 'acme' : 'globex',
        })),
      );
    }
    await eventually(
      () => lettersOf(app),
      (rows) => expect(rows).toHaveLength(letters * queues.length),
    );
    runs.length = 0;
    return { app, place, bank, runs, service: app.get(DeadLetterService) };
  }

  async function ended(service: DeadLetterService, id: string | undefined): Promise<Redrive> {
    return eventually(
      () => service.getRedrive(id as string),
      ({ status }) => expect(status).not.toBe('running'),
    );
  }

  it('brings every matching letter back once, and leaves the others alone', async () => {
    const { app, bank, runs, service } = await withLetters(30);
    bank.act = () => undefined;
    const plan = await service.redriveMany(
      { queue: 'charges', tenantId: 'acme' },
      { ...BY, ratePerSecond: 100 },
    );
    expect(plan).toMatchObject({ letters: 15, leftOut: 0 });
    expect(await ended(service, plan.redriveId)).toMatchObject({
      status: 'completed',
      letters: 15,
      filter: { tenantId: 'acme' },
      progress: { left: 0, redriven: 15, failed: 0 },
      ...BY,
    });
    await eventually(
      () => runs,
      (seen) => expect(seen).toHaveLength(15),
    );
    expect(runs.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 15 }, (_, index) => index * 2));
    expect((await service.list({ tenantId: 'globex' })).letters).toHaveLength(15);
    const actions = await dataSourceOf(app).query<{ action: string; rows: number }[]>(
      `SELECT action, count(*)::integer AS rows FROM job_actions WHERE actor = 'ada' GROUP BY action ORDER BY action`,
    );
    expect(actions).toEqual([
      { action: 'redrive', rows: 15 },
      { action: 'redrive_completed', rows: 1 },
      { action: 'redrive_many', rows: 1 },
    ]);
  });

  it('sends the canaries alone, and the rest only once these have ended', async () => {
    const { app, bank, runs, service } = await withLetters(12);
    const gate = new Gate();
    bank.act = () => gate.pass();
    const { redriveId } = await service.redriveMany(
      { queue: 'charges' },
      { ...BY, ratePerSecond: 100, canary: 3 },
    );
    await eventually(
      () => runs,
      (seen) => expect(seen).toHaveLength(3),
    );
    // Long enough for two more steps, had it not to wait.
    await dataSourceOf(app).query('SELECT pg_sleep(0.6)');
    expect((await service.getRedrive(redriveId as string)).progress).toMatchObject({
      redriven: 3,
      underWay: 3,
    });
    gate.open();
    expect(await ended(service, redriveId)).toMatchObject({ progress: { redriven: 12 } });
    await eventually(
      () => runs,
      (seen) => expect(seen).toHaveLength(12),
    );
  });

  it('stops by itself when more of its canaries fail again than it was told to bear', async () => {
    const { bank, runs, service } = await withLetters(12);
    bank.act = (order) => {
      if (order % 2 === 0) throw new PermanentError('still closed');
    };
    const { redriveId } = await service.redriveMany({ queue: 'charges' }, { ...BY, ratePerSecond: 100 });
    expect(await ended(service, redriveId)).toMatchObject({
      status: 'stopped',
      endedBecause: expect.stringMatching(/of 5 redriven operations failed again/),
      progress: { redriven: 5, left: 7 },
    });
    expect(runs).toHaveLength(5);
    // What it left can be redriven by another, which is as careful.
    bank.act = () => undefined;
    const next = await service.redriveMany({ queue: 'charges' }, { ...BY, ratePerSecond: 100 });
    expect(await ended(service, next.redriveId)).toMatchObject({ status: 'completed' });
  });

  it('goes no faster than its rate', async () => {
    const { bank, service } = await withLetters(14);
    bank.act = () => undefined;
    const startedAt = performance.now();
    const { redriveId } = await service.redriveMany(
      { queue: 'charges' },
      { ...BY, ratePerSecond: 5, canary: 0 },
    );
    await ended(service, redriveId);
    // 14 letters at 5 a second take 2.6 s after the first; a share of that shows that the rate is kept at all.
    expect(performance.now() - startedAt).toBeGreaterThan(2_000);
  });

  it('cancelled, it brings nothing more back', async () => {
    const { app, bank, service } = await withLetters(40);
    bank.act = () => undefined;
    const { redriveId } = await service.redriveMany(
      { queue: 'charges' },
      { ...BY, ratePerSecond: 4, canary: 1 },
    );
    await eventually(
      () => service.getRedrive(redriveId as string),
      ({ progress }) => expect(progress.redriven).toBeGreaterThan(1),
    );
    const cancelled = await service.cancelRedrive(redriveId as string, { actor: 'bob', note: 'wrong queue' });
    expect(cancelled).toMatchObject({ status: 'cancelled', endedBecause: 'wrong queue' });
    const { left } = cancelled.progress;
    expect(left).toBeGreaterThan(0);
    await dataSourceOf(app).query('SELECT pg_sleep(0.7)');
    expect((await service.getRedrive(redriveId as string)).progress.left).toBe(left);
    await expect(service.cancelRedrive(redriveId as string, BY)).rejects.toThrow(/not running any more/);
  });

  it('is the only one of its queue, and others go on beside it', async () => {
    const { bank, service } = await withLetters(12, { queues: ['charges', 'refunds'] });
    const gate = new Gate();
    bank.act = () => gate.pass();
    const first = await service.redriveMany({ queue: 'charges' }, BY);
    await expect(service.redriveMany({ queue: 'charges' }, BY)).rejects.toThrow(/only one may run/);
    // Its first operation waits there, and it for that one.
    await gate.arrival;
    bank.act = () => undefined;
    const beside = await service.redriveMany({ queue: 'refunds' }, { ...BY, ratePerSecond: 100 });
    expect(await ended(service, beside.redriveId)).toMatchObject({ status: 'completed' });
    await service.cancelRedrive(first.redriveId as string, BY);
    gate.open();
  });

  it('of several begun at once for one queue, one begins', async () => {
    const { service } = await withLetters(5);
    const begun = await Promise.allSettled(
      Array.from({ length: 4 }, () => service.redriveMany({ queue: 'charges' }, BY)),
    );
    expect(begun.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    expect(await service.redrives({ queue: 'charges' })).toHaveLength(1);
  });

  it('whose process is killed in the middle is carried on by another, and runs every operation once', async () => {
    const letters = 60;
    const { app, place } = await withLetters(letters);
    await dataSourceOf(app).query('CREATE TABLE runs (operation_key text, pid integer)');
    await apps.close(app);
    const watcher = await apps.beside(place, { queues: ['charges'], jobs: { dispatch: { enabled: false } } });
    const service = watcher.get(DeadLetterService);

    const victim = processes.launch({ role: 'redriver', place });
    const redriveId = (await victim.reached('begun')).redriveId as string;
    await eventually(
      () => service.getRedrive(redriveId),
      ({ progress }) => expect(progress.redriven).toBeGreaterThan(10),
    );
    await victim.end();
    const { status, progress } = await service.getRedrive(redriveId);
    expect(status).toBe('running');
    expect(progress.left).toBeGreaterThan(0);

    // The lease of the dead process, which another would wait for.
    await dataSourceOf(watcher).query(`UPDATE dead_letter_redrives SET lease_expires_at = clock_timestamp()`);
    const processor = processorOf('charges', { effect: 'transactional' }, (_job, operation) =>
      operation.transaction.query('INSERT INTO runs VALUES ($1, $2)', [operation.operationKey, process.pid]),
    );
    await apps.beside(place, { queues: ['charges'], providers: [processor] });
    expect(await ended(service, redriveId)).toMatchObject({ status: 'completed', progress: { left: 0 } });
    const runs = await eventually(
      () => dataSourceOf(watcher).query<{ operation_key: string }[]>('SELECT * FROM runs'),
      (rows) => expect(rows.length).toBeGreaterThanOrEqual(letters),
    );
    expect(new Set(runs.map((run) => run.operation_key)).size).toBe(letters);
    expect(runs).toHaveLength(letters);
  });
});
