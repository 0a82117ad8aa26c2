import type { INestApplicationContext } from '@nestjs/common';
import { IdempotentJobsError } from 'nestjs-idempotent-jobs/errors';
import { JobEvents } from 'nestjs-idempotent-jobs/observe';
import { describe, expect, it } from 'vitest';
import { useThieves } from '../support/answer-thief.js';
import { useApps } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { idempotentQueue, lettersOf, numbered, outcomeOf, settled } from '../support/ledger.js';
import { Gate, processorOf } from '../support/processors.js';
import { ANY_BACKEND, BACKENDS, dataSourceOf, makePlace } from '../support/scenario.js';
import { useSessions } from '../support/sessions.js';

const enqueueAs = async (app: INestApplicationContext, tenantId: string, keys: string[]): Promise<void> => {
  for (const operationKey of keys)
    await idempotentQueue(app, 'charges').enqueue('charge', {}, { operationKey, tenantId });
};

describe.each(BACKENDS)('rows and tables that somebody holds, queues on %s', (backend) => {
  const thieves = useThieves();
  const apps = useApps();
  const sessions = useSessions();
  /** A place with a producer, and which operations a worker that is started there has called its handler for. */
  const begin = async () => {
    const { app, place } = await apps.fresh(backend, { queues: ['charges'] });
    const called: string[] = [];
    const processor = processorOf('charges', {}, (_job, { tenantId, operationKey }) => {
      called.push(`${tenantId} ${operationKey}`);
    });
    const work = () => apps.beside(place, { queues: ['charges'], providers: [processor] });
    return { app, place, called, work };
  };

  it('keep no other operation waiting, and are claimed once they are free, without a doubt', async () => {
    const { app, place, called, work } = await begin();
    const [held, free] = [numbered(6), numbered(20)];
    await enqueueAs(app, 'acme', held);
    await enqueueAs(app, 'globex', free);
    const colleague = await sessions.open(place);
    await colleague.query(`BEGIN; SELECT FROM job_outcomes WHERE tenant_id = 'acme' FOR UPDATE`);
    await work();
    for (const key of free) await settled(app, key, 'globex');
    expect(called.filter((one) => one.startsWith('acme'))).toEqual([]);
    await colleague.query('COMMIT');
    for (const key of held)
      expect(await settled(app, key)).toMatchObject({ status: 'completed', attempts: 1 });
    expect(called.toSorted()).toEqual(
      [...held.map((key) => `acme ${key}`), ...free.map((key) => `globex ${key}`)].toSorted(),
    );
    expect(await lettersOf(app)).toEqual([]);
  });

  it.each([
    ['one by one', 1],
    ['several at once', 2],
  ])(
    'of one tenant, enqueued %s by many, keep no producer of another tenant waiting',
    async (_how, count) => {
      const { app, place } = await begin();
      const keys = numbered(80);
      const colleague = await sessions.open(place);
      await colleague.query('BEGIN');
      for (const key of keys)
        await colleague.query(
          `INSERT INTO job_outcomes (tenant_id, operation_key, origin, queue, job_name, job_id, fingerprint, status)
         VALUES ('acme', $1, 'job', 'charges', 'charge', 'op-1', repeat('0', 64), 'pending')`,
          [key],
        );
      const queue = idempotentQueue(app, 'charges');
      let refused = 0;
      const held = keys.map((_key, index) =>
        queue
          .enqueueMany(
            keys
              .slice(Math.min(index, keys.length - count))
              .slice(0, count)
              .map((operationKey) => ({ name: 'charge', payload: {}, operationKey, tenantId: 'acme' })),
          )
          .catch(() => (refused += 1)),
      );
      await queue.enqueue('charge', {}, { operationKey: 'charge:free', tenantId: 'globex' });
      // Each of them would have waited for its whole time before.
      expect(refused).toBe(0);
      await colleague.query('ROLLBACK');
      await Promise.all(held);
    },
  );

  it('do not keep the outcomes of other operations from being recorded', async () => {
    const { app, place } = await apps.fresh(backend, { queues: ['charges'] });
    const gate = new Gate();
    const processor = processorOf('charges', { effect: 'natural' }, async () => gate.pass());
    await apps.beside(place, { queues: ['charges'], providers: [processor] });
    await enqueueAs(app, 'acme', ['held']);
    await enqueueAs(app, 'globex', numbered(5));
    await eventually(
      () =>
        dataSourceOf(app).query<[{ running: number }]>(
          `SELECT count(*)::integer AS running FROM job_outcomes WHERE status = 'running'`,
        ),
      ([row]) => expect(row.running).toBe(6),
    );
    const colleague = await sessions.open(place);
    await colleague.query(`BEGIN; SELECT FROM job_outcomes WHERE tenant_id = 'acme' FOR UPDATE`);
    gate.open();
    for (const key of numbered(5)) await settled(app, key, 'globex');
    expect(await outcomeOf(app, 'held')).toMatchObject({ status: 'running' });
    await colleague.query('COMMIT');
    expect(await settled(app, 'held')).toMatchObject({ status: 'completed', attempts: 1 });
  });

  it('a table that is locked for longer than anybody waits: nothing comes true behind the back of whoever gave up', async () => {
    const { app, place, called, work } = await begin();
    const keys = numbered(20);
    await enqueueAs(app, 'acme', keys);
    const putOff = new Set<string>();
    const worker = await work();
    await apps.close(worker);
    called.splice(0);
    await enqueueAs(app, 'acme', numbered(40).slice(20));
    const colleague = await sessions.open(place);
    await colleague.query('BEGIN; LOCK TABLE job_outcomes IN SHARE MODE');
    const again = await work();
    again.get(JobEvents).subscribe((event) => {
      if (event.kind === 'deferred' && event.operationKey !== undefined) putOff.add(event.operationKey);
    });
    // Whoever claims has given up once for each of them.
    await eventually(
      () => putOff.size,
      (size) => expect(size).toBeGreaterThanOrEqual(10),
    );
    expect(called).toEqual([]);
    await colleague.query('COMMIT');
    for (const key of numbered(40))
      expect(await settled(app, key)).toMatchObject({ status: 'completed', attempts: 1 });
    expect(await lettersOf(app)).toEqual([]);
  });

  it('a claim whose answer never comes is given back: its handler was not called, and nothing is in doubt', async () => {
    const place = await makePlace(backend);
    const thief = await thieves.before(place.databaseUrl);
    const producer = await apps.beside(place, { queues: ['charges'] });
    let calls = 0;
    await apps.beside(
      { ...place, databaseUrl: thief.url },
      {
        queues: ['charges'],
        providers: [processorOf('charges', { leaseMs: 120_000 }, () => (calls += 1))],
        jobs: { dispatch: { enabled: false } },
      },
    );
    // Of all that this process says to Postgres only the claim names the effect.
    thief.holdBack('unrepeatable');
    await enqueueAs(producer, 'acme', ['charge:unheard']);
    expect(await settled(producer, 'charge:unheard', 'acme')).toMatchObject({
      status: 'completed',
      attempts: 1,
    });
    expect(thief.stolen).toBe(1);
    expect(calls).toBe(1);
    expect(await lettersOf(producer)).toEqual([]);
  });

  it('of claims whose answers never come, one whose row is held keeps no other from being given back', async () => {
    const place = await makePlace(backend);
    const thief = await thieves.before(place.databaseUrl);
    const producer = await apps.beside(place, { queues: ['charges'] });
    await apps.beside(
      { ...place, databaseUrl: thief.url },
      {
        queues: ['charges'],
        providers: [processorOf('charges', { leaseMs: 120_000 }, () => 'done')],
        jobs: { dispatch: { enabled: false } },
      },
    );
    thief.holdBackAll('unrepeatable');
    const keys = ['charge:held', 'charge:unheard'] as const;
    await enqueueAs(producer, 'acme', [...keys]);
    for (const key of keys)
      await eventually(
        () => outcomeOf(producer, key),
        (outcome) => expect(outcome).toMatchObject({ status: 'running' }),
      );
    thief.rest();
    const colleague = await sessions.open(place);
    await colleague.query(`BEGIN; SELECT FROM job_outcomes WHERE operation_key = 'charge:held' FOR UPDATE`);
    expect(await settled(producer, 'charge:unheard', 'acme')).toMatchObject({ attempts: 1 });
    await colleague.query('COMMIT');
    expect(await settled(producer, 'charge:held', 'acme')).toMatchObject({
      status: 'completed',
      attempts: 1,
    });
    expect(await lettersOf(producer)).toEqual([]);
  });
});

describe('producers that wait for a key that an open transaction holds', () => {
  const apps = useApps();
  const sessions = useSessions();

  it('are told whose it is, and keep neither other tenants nor leases waiting', async () => {
    const { app, place } = await apps.fresh(ANY_BACKEND, { queues: ['charges'] });
    const gate = new Gate();
    const processor = processorOf('charges', { leaseMs: 2_000 }, async () => {
      await gate.pass();
      return 'done';
    });
    const worker = await apps.beside(place, { queues: ['charges'], providers: [processor] });
    const queue = idempotentQueue(worker, 'charges');
    await enqueueAs(worker, 'globex', ['long']);
    await gate.arrival;
    const holder = await sessions.open(place);
    await holder.query('BEGIN');
    await idempotentQueue(app, 'charges').enqueue(
      'charge',
      {},
      { operationKey: 'held', tenantId: 'acme', transaction: holder },
    );
    const repeats = Array.from({ length: 20 }, () =>
      queue.enqueue('charge', {}, { operationKey: 'held', tenantId: 'acme' }).then(
        () => undefined,
        (error: unknown) => error,
      ),
    );
    await queue.enqueue('charge', {}, { operationKey: 'other', tenantId: 'initech' });
    for (const error of await Promise.all(repeats)) {
      expect(error).toBeInstanceOf(IdempotentJobsError);
      expect(error).toMatchObject({
        code: 'OPERATION_LOCKED',
        message: expect.stringMatching(/"held" of tenant "acme".*transaction/),
      });
    }
    gate.open();
    expect(await settled(app, 'long', 'globex')).toMatchObject({
      status: 'completed',
      result: 'done',
      attempts: 1,
    });
    await holder.query('COMMIT');
    await queue.enqueue('charge', {}, { operationKey: 'held', tenantId: 'acme' });
  });
});
