import { JobEvents } from 'nestjs-idempotent-jobs/observe';
import { describe, expect, it } from 'vitest';
import { useThieves } from '../support/answer-thief.js';
import { useApps } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import {
  attemptKindsOf,
  enqueue,
  idempotentQueue,
  lettersOf,
  numbered,
  outcomeOf,
  settled,
} from '../support/ledger.js';
import { Gate, processorOf } from '../support/processors.js';
import { BACKENDS, dataSourceOf, makePlace } from '../support/scenario.js';
import { useSessions } from '../support/sessions.js';
import { CREATE_WORK } from '../support/script.js';
import { useProcesses } from '../support/processes.js';

describe.each(BACKENDS)('a Postgres that says nothing, or goodbye, queues on %s', (backend) => {
  const thieves = useThieves();
  const workers = useProcesses();
  const apps = useApps();
  const sessions = useSessions();

  it('COMMITs that are never answered wedge nothing: the rows decide, each effect is there once, and the worker ends', async () => {
    const place = await makePlace(backend);
    const thief = await thieves.before(place.databaseUrl);
    const producer = await apps.beside(place, { queues: ['inventory'] });
    await dataSourceOf(producer).query('CREATE TABLE reservations (key text)');
    const worker = await apps.beside(
      { ...place, databaseUrl: thief.url },
      {
        queues: ['inventory'],
        providers: [
          processorOf(
            'inventory',
            { effect: 'transactional' },
            async (_job, { transaction, operationKey }) => {
              await transaction.query('INSERT INTO reservations VALUES ($1)', [operationKey]);
            },
          ),
        ],
      },
    );
    thief.holdBackAll('COMMIT');
    const keys = numbered(6);
    for (const key of keys) await enqueue(producer, 'inventory', 'reserve', {}, key);
    await eventually(
      () => thief.stolen,
      (stolen) => expect(stolen).toBeGreaterThanOrEqual(6),
    );
    thief.rest();
    for (const key of keys) await settled(producer, key);
    await enqueue(producer, 'inventory', 'reserve', {}, 'reserve:after');
    expect(await settled(producer, 'reserve:after')).toMatchObject({ status: 'completed' });
    const rows = await dataSourceOf(producer).query<{ key: string }[]>(
      'SELECT key FROM reservations ORDER BY key',
    );
    expect(rows.map(({ key }) => key)).toEqual([...keys, 'reserve:after'].toSorted());
    await apps.close(worker);
  });

  it('a statement that outlives its attempt ends on the server with it; the attempts are counted, and others go on', async () => {
    let calls = 0;
    const { app, place } = await apps.fresh(backend, {
      queues: ['inventory'],
      providers: [
        processorOf(
          'inventory',
          {
            effect: 'transactional',
            timeoutMs: 1000,
            retry: { attempts: 2, backoff: { baseMs: 10, capMs: 20 } },
          },
          async (_job, { transaction, tenantId }) => {
            if (tenantId !== 'acme') return;
            calls += 1;
            await transaction.query('SELECT pg_sleep(40)');
          },
        ),
      ],
    });
    const keys = numbered(8);
    for (const key of keys) await enqueue(app, 'inventory', 'reserve', {}, key);
    const queue = idempotentQueue(app, 'inventory');
    await queue.enqueue('reserve', {}, { operationKey: 'other', tenantId: 'globex' });
    expect(await settled(app, 'other', 'globex')).toMatchObject({ status: 'completed' });
    for (const key of keys)
      expect(await settled(app, key)).toMatchObject({ status: 'dead', attempts: 2, failures: 2 });
    // An attempt whose transaction is gone before its failure is recorded leaves no trace, and is made again.
    expect(calls).toBeGreaterThanOrEqual(16);
    expect((await lettersOf(app)).map(({ reason }) => reason)).toEqual(keys.map(() => 'retries_exhausted'));
    expect(await attemptKindsOf(app, 'charge:0')).toEqual(['in_doubt', 'in_doubt']);
    const colleague = await sessions.open(place);
    const { rows } = await colleague.query(
      `SELECT pid FROM pg_stat_activity
       WHERE datname = current_database() AND query LIKE '%pg_sleep(40)%' AND pid <> pg_backend_pid() AND state = 'active'`,
    );
    expect(rows).toEqual([]);
  });

  it('handlers whose Postgres is away when they end give their connections back once it is there again', async () => {
    const gate = new Gate();
    const { app, place } = await apps.fresh(backend, {
      queues: ['inventory'],
      providers: [
        processorOf('inventory', { effect: 'transactional', timeoutMs: 600_000 }, (_job, operation) =>
          operation.operationKey === 'after' ? 'done' : gate.pass(),
        ),
      ],
    });
    const ours = `datname = '${new URL(place.databaseUrl).pathname.slice(1)}' AND pid <> pg_backend_pid()`;
    const inTransactions = `${ours} AND state = 'idle in transaction' AND query LIKE '%idempotent_jobs_attempt%'`;
    const elsewhere = new URL(place.databaseUrl);
    elsewhere.pathname = '/postgres';
    const admin = await sessions.open({ databaseUrl: elsewhere.toString() });
    for (const key of numbered(6)) await enqueue(app, 'inventory', 'reserve', {}, key);
    await eventually(
      () => admin.query(`SELECT FROM pg_stat_activity WHERE ${inTransactions}`),
      ({ rowCount }) => expect(rowCount).toBe(6),
    );
    const database = new URL(place.databaseUrl).pathname.slice(1);
    await admin.query(`ALTER DATABASE ${database} ALLOW_CONNECTIONS false`);
    await admin.query(`SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE ${ours}`);
    const putOff = new Set<unknown>();
    app.get(JobEvents).subscribe((event) => {
      if (event.kind === 'deferred') putOff.add(event.operationKey);
    });
    gate.open();
    await eventually(
      () => putOff.size,
      (size) => expect(size).toBe(6),
    );
    await admin.query(`ALTER DATABASE ${database} ALLOW_CONNECTIONS true`);
    await enqueue(app, 'inventory', 'reserve', {}, 'after');
    for (const key of [...numbered(6), 'after'])
      expect(await settled(app, key)).toMatchObject({ status: 'completed' });
  });

  it('a LISTEN that is never answered keeps no application from starting, nor from ending', async () => {
    const place = await makePlace(backend);
    const thief = await thieves.before(place.databaseUrl);
    thief.holdBackAll('LISTEN "idempotent_jobs');
    const app = await apps.beside(
      { ...place, databaseUrl: thief.url },
      { queues: ['charges'], providers: [processorOf('charges', { effect: 'natural' }, () => 'done')] },
    );
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'completed' });
    await eventually(
      () => thief.stolen,
      (stolen) => expect(stolen).toBeGreaterThan(0),
    );
    await apps.close(app);
  });

  it('a goodbye that comes with an answer ends no process, and puts nothing in doubt', async () => {
    const { app, place } = await apps.fresh(backend, { queues: ['charges'] });
    await dataSourceOf(app).query(CREATE_WORK);
    const thief = await thieves.before(place.databaseUrl);
    const worker = await workers.start({
      place: { ...place, databaseUrl: thief.url },
      effect: 'natural',
      act: 'work',
      leaseMs: 10_000,
      concurrency: 40,
    });
    let isEnded = false;
    void worker.exited.then(() => (isEnded = true));
    thief.sayGoodbyeWith('charge:');
    const keys = numbered(60);
    for (const key of keys) await enqueue(app, 'charges', 'charge', {}, key);
    await eventually(
      () => thief.stolen,
      (stolen) => expect(stolen).toBeGreaterThanOrEqual(20),
    );
    thief.letGo();
    for (const key of keys) expect(await settled(app, key)).toMatchObject({ status: 'completed' });
    expect(isEnded).toBe(false);
  });

  it('all sessions ended at once, again and again, end no process and lose nothing', async () => {
    const { app, place } = await apps.fresh(backend, { queues: ['charges'] });
    await dataSourceOf(app).query(CREATE_WORK);
    const worker = await workers.start({
      place,
      effect: 'natural',
      act: 'work',
      leaseMs: 10_000,
      concurrency: 20,
    });
    let isEnded = false;
    void worker.exited.then(() => (isEnded = true));
    const colleague = await sessions.open(place);
    const keys = numbered(40);
    for (const [index, key] of keys.entries()) {
      await enqueue(app, 'charges', 'charge', {}, key);
      if (index % 5 !== 4) continue;
      const { rowCount } = await colleague.query(
        `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND application_name = 'nestjs-idempotent-jobs' AND pid <> pg_backend_pid()`,
      );
      expect(rowCount).toBeGreaterThan(0);
      await eventually(
        () => outcomeOf(app, keys[index] as string).catch(() => undefined),
        (outcome) => expect(outcome).toBeDefined(),
      );
    }
    for (const key of keys) expect(await settled(app, key)).toMatchObject({ status: 'completed' });
    expect(isEnded).toBe(false);
  });
});
