import { describe, expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { bullQueue, deliver, outcomeOf } from '../support/ledger.js';
import { identifyPlain, processorOf } from '../support/processors.js';
import { BACKENDS, dataSourceOf } from '../support/scenario.js';
import type { Effect } from 'nestjs-idempotent-jobs/types';

const DELIVERIES = 20;

describe.each(BACKENDS)('two workers race for one key, on %s', (backend) => {
  const apps = useApps();

  it.each<Effect>(['natural', 'keyed', 'unrepeatable', 'transactional'])(
    '%s: one runs, all others replay its result',
    async (effect) => {
      let calls = 0;
      const handler = async (): Promise<number> => {
        calls += 1;
        const mine = calls;
        await new Promise((resolve) => setImmediate(resolve));
        return mine;
      };
      const options = { effect, leaseMs: 3000, identify: identifyPlain } as const;
      const { app, place } = await apps.fresh(backend, {
        queues: ['charges'],
        providers: [processorOf('charges', options, handler)],
      });
      await apps.beside(place, {
        queues: ['charges'],
        providers: [processorOf('charges', options, handler)],
      });

      await Promise.all(Array.from({ length: DELIVERIES }, () => deliver(app, 'charges', 'charge:1')));

      const jobs = await eventually(
        () => bullQueue(app, 'charges').getJobs(['completed']),
        (completed) => expect(completed).toHaveLength(DELIVERIES),
      );
      expect(jobs.map((job) => job.returnvalue as unknown)).toEqual(
        Array.from({ length: DELIVERIES }, () => 1),
      );
      expect(calls).toBe(1);
      expect(await outcomeOf(app, 'charge:1')).toMatchObject({ status: 'completed', attempts: 1 });
    },
  );

  it('transactional: the loser of a race for the unique row writes nothing', async () => {
    const options = { effect: 'transactional', identify: identifyPlain } as const;
    const handler = async (
      _job: unknown,
      operation: { transaction: { query(sql: string): Promise<unknown> } },
    ): Promise<void> => {
      await operation.transaction.query(`INSERT INTO reservations (at) VALUES (now())`);
      await operation.transaction.query('SELECT pg_sleep(0.3)');
    };
    const { app, place } = await apps.fresh(backend, {
      queues: ['charges'],
      providers: [processorOf('charges', options, handler)],
    });
    await dataSourceOf(app).query('CREATE TABLE reservations (at timestamptz)');
    await apps.beside(place, { queues: ['charges'], providers: [processorOf('charges', options, handler)] });
    await Promise.all(Array.from({ length: 6 }, () => deliver(app, 'charges', 'reserve:1')));
    await eventually(
      () => bullQueue(app, 'charges').getJobCounts('completed'),
      (counts) => expect(counts).toMatchObject({ completed: 6 }),
    );
    expect(await dataSourceOf(app).query('SELECT count(*)::integer AS rows FROM reservations')).toEqual([
      { rows: 1 },
    ]);
  });

  it('two tenants with the same key do not meet', async () => {
    const seen: string[] = [];
    const processor = processorOf(
      'charges',
      { effect: 'unrepeatable', leaseMs: 3000, identify: identifyPlain },
      (_job, operation) => {
        seen.push(operation.tenantId);
        return operation.tenantId;
      },
    );
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor] });
    await Promise.all(
      ['acme', 'globex', 'acme', 'globex'].map((tenant) => deliver(app, 'charges', 'charge:1', {}, tenant)),
    );
    await eventually(
      () => bullQueue(app, 'charges').getJobCounts('completed'),
      (counts) => expect(counts).toMatchObject({ completed: 4 }),
    );
    expect(seen.toSorted()).toEqual(['acme', 'globex']);
    expect(await outcomeOf(app, 'charge:1', 'globex')).toMatchObject({ result: 'globex' });
    expect(await outcomeOf(app, 'charge:1', 'acme')).toMatchObject({ result: 'acme' });
  });
});
