import { IdempotentJobsModule, OutcomeService } from 'nestjs-idempotent-jobs';
import { Client, types } from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { useApps, useOneApp } from '../support/apps.js';
import { enqueue, idempotentQueue, outcomeOf, settled } from '../support/ledger.js';
import type { Place } from '../support/place.js';
import { processorOf } from '../support/processors.js';
import { BACKENDS, dataSourceOf, makePlace } from '../support/scenario.js';

const numbered = (count: number): string[] => Array.from({ length: count }, (_, index) => `charge:${index}`);

async function say(databaseUrl: string, sql: string): Promise<void> {
  const admin = new Client({ connectionString: databaseUrl });
  await admin.connect();
  await admin.query(sql);
  await admin.end();
}

/** BullMQ's own connections to Postgres go by what is set for them, and are its to set. */
function ofItsOwnLevel(place: Place): Place {
  if (place.backend === 'redis') return place;
  const options = '-c default_transaction_isolation=read\\ committed';
  return { ...place, connection: { ...place.connection, options } };
}

describe.each(BACKENDS)('what applications and databases set for themselves, queues on %s', (backend) => {
  const apps = useApps();

  describe.each(['read committed', 'repeatable read', 'serializable'])(
    'a database whose transactions are %s by default',
    (level) => {
      const app = useOneApp(
        async () => {
          const place = await makePlace(backend);
          const name = new URL(place.databaseUrl).pathname.slice(1);
          await say(
            place.databaseUrl,
            `ALTER DATABASE ${name} SET default_transaction_isolation = '${level}'`,
          );
          return ofItsOwnLevel(place);
        },
        {
          queues: ['natural', 'transactional'],
          providers: [
            processorOf('natural', { effect: 'natural' }, () => 'done'),
            processorOf('transactional', { effect: 'transactional' }, () => 'done'),
          ],
        },
      );

      it.each(['natural', 'transactional'] as const)(
        'takes operations side by side and runs them: effect %s',
        async (effect) => {
          const tenantId = `tenant-${effect}`;
          const queue = idempotentQueue(app(), effect);
          const keys = numbered(50);
          await Promise.all(
            keys.map((operationKey) => queue.enqueue('charge', {}, { operationKey, tenantId })),
          );
          // Once more, and many at once: both find what is there.
          await Promise.all(
            keys.map((operationKey) => queue.enqueue('charge', {}, { operationKey, tenantId })),
          );
          await queue.enqueueMany(
            keys.map((operationKey) => ({ name: 'charge', payload: {}, operationKey, tenantId })),
          );
          for (const key of keys)
            expect(await settled(app(), key, tenantId)).toMatchObject({
              status: 'completed',
              result: 'done',
              failures: 0,
            });
        },
      );
    },
  );

  it('a database that is read only by default, and writes dates in its own way, keeps the ledger from nothing', async () => {
    const place = await makePlace(backend);
    const name = new URL(place.databaseUrl).pathname.slice(1);
    await say(place.databaseUrl, `ALTER DATABASE ${name} SET DateStyle = 'SQL, DMY'`);
    // BullMQ's own connections obey what is set for them.
    if (backend === 'redis')
      await say(place.databaseUrl, `ALTER DATABASE ${name} SET default_transaction_read_only = on`);
    const app = await apps.beside(place, {
      queues: ['charges'],
      providers: [processorOf('charges', { effect: 'natural' }, () => 'done')],
    });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    const { startedAt, settledAt } = await settled(app, 'charge:1');
    expect(settledAt?.getTime()).toBeGreaterThanOrEqual(startedAt?.getTime() as number);
  });

  it('a handler reads dates in the way of its database, and the library still its own', async () => {
    const place = await makePlace(backend);
    const name = new URL(place.databaseUrl).pathname.slice(1);
    await say(place.databaseUrl, `ALTER DATABASE ${name} SET DateStyle = 'SQL, DMY'`);
    const app = await apps.beside(place, {
      queues: ['inventory'],
      providers: [
        processorOf('inventory', { effect: 'transactional' }, async (_job, operation) => {
          const [{ style }] = await operation.transaction.query<[{ style: string }]>(
            `SELECT current_setting('DateStyle') AS style`,
          );
          return { style, startedAt: operation.startedAt.getTime(), deadline: operation.deadline?.getTime() };
        }),
      ],
    });
    const deadline = new Date(Date.now() + 3_600_000);
    await idempotentQueue(app, 'inventory').enqueue(
      'reserve',
      {},
      { operationKey: 'reserve:1', tenantId: 'acme', deadline },
    );
    const reserved = await settled(app, 'reserve:1');
    expect(reserved.result).toEqual({
      style: 'SQL, DMY',
      startedAt: reserved.startedAt?.getTime(),
      deadline: deadline.getTime(),
    });
  });

  it('another role for the library than the application’s must be able to end its sessions', async () => {
    const { place } = await apps.fresh(backend, { queues: ['charges'] });
    const database = new URL(place.databaseUrl).pathname.slice(1);
    const [owner, clerk] = [`owner_${database}`, `clerk_${database}`];
    await say(
      place.databaseUrl,
      `CREATE ROLE ${owner} LOGIN SUPERUSER; CREATE ROLE ${clerk} LOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO ${clerk}`,
    );
    const url = new URL(place.databaseUrl);
    url.username = owner;
    const options = { queues: ['charges'], jobs: { pool: { connection: { user: clerk } } } };
    const ofOwner = { ...place, databaseUrl: url.toString() };
    await expect(apps.beside(ofOwner, options)).rejects.toThrow(
      new RegExp(
        `"${clerk}", which may not end sessions of the DataSource's role "${owner}".*GRANT "${owner}" TO "${clerk}"`,
      ),
    );
    await say(place.databaseUrl, `GRANT ${owner} TO ${clerk}`);
    const app = await apps.beside(ofOwner, options);
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    expect(await outcomeOf(app, 'charge:1')).toMatchObject({ status: 'pending' });
    await apps.close(app);
    await say(place.databaseUrl, `DROP OWNED BY ${clerk}, ${owner}; DROP ROLE ${clerk}; DROP ROLE ${owner}`);
  });

  describe('an application that has pg read types in its own way', () => {
    const PARSERS: [number, (text: string) => unknown][] = [
      [16, (text) => ({ isTrue: text === 't' })],
      [20, (text) => BigInt(text)],
      [23, (text) => BigInt(text)],
      [114, (text) => ({ json: text })],
      [701, (text) => ({ float: text })],
      [1184, (text) => ({ instant: text })],
      [3802, (text) => ({ json: text })],
    ];
    const before = PARSERS.map(([oid]) => [oid, types.getTypeParser(oid)] as const);
    beforeAll(() => {
      // BullMQ's own reading of Postgres is not the library's to keep.
      if (backend === 'redis') for (const [oid, parse] of PARSERS) types.setTypeParser(oid, parse as never);
      else types.setTypeParser(1184, (text) => ({ odd: text }) as never);
    });
    afterAll(() => {
      for (const [oid, parse] of before) types.setTypeParser(oid, parse);
    });

    const EFFECTS = ['natural', 'transactional', 'unrepeatable'] as const;
    let place: Place;
    const app = useOneApp(async () => (place = await makePlace(backend)), {
      queues: EFFECTS,
      providers: EFFECTS.map((effect) =>
        processorOf(effect, { effect }, (_job, { attempt, startedAt }) => [
          attempt,
          startedAt instanceof Date,
        ]),
      ),
    });

    it.each(EFFECTS)('runs operations: effect %s', async (effect) => {
      const tenantId = `tenant-${effect}`;
      await enqueue(app(), effect, 'charge', {}, 'charge:1', tenantId);
      const outcome = await settled(app(), 'charge:1', tenantId);
      expect(outcome).toMatchObject({ status: 'completed', attempts: 1, result: [1, true] });
      expect(outcome.settledAt).toBeInstanceOf(Date);
      const history = await app().get(OutcomeService).history({ tenantId, operationKey: 'charge:1' });
      expect(history.map(({ kind }) => kind)).toEqual(['accepted', 'completed']);
      // In the application's own transaction, too.
      await dataSourceOf(app()).transaction((transaction) =>
        idempotentQueue(app(), effect).enqueue(
          'charge',
          {},
          { operationKey: 'charge:2', tenantId, transaction },
        ),
      );
      expect(await settled(app(), 'charge:2', tenantId)).toMatchObject({ status: 'completed' });
      // Another application on the schema that is there finds it up to date.
      await apps.beside(place, { queues: [effect], jobs: { migrations: 'check' } });
    });
  });

  it('the library has connections of its own, which it takes with it when it goes', async () => {
    const { app, place } = await apps.fresh(backend, {
      queues: ['charges'],
      providers: [processorOf('charges', { effect: 'natural' }, () => 'done')],
      jobs: { pool: { max: 5 } },
    });
    await Promise.all(
      numbered(30).map((operationKey) =>
        idempotentQueue(app, 'charges').enqueue('charge', {}, { operationKey, tenantId: 'acme' }),
      ),
    );
    for (const key of numbered(30)) await settled(app, key);
    expect(await outcomeOf(app, 'charge:0')).toMatchObject({ status: 'completed' });
    const countOf = async (): Promise<number> => {
      const client = new Client({ connectionString: place.databaseUrl });
      await client.connect();
      const { rows } = await client.query<{ count: number }>(
        `SELECT count(*)::integer AS count FROM pg_stat_activity
         WHERE datname = current_database() AND application_name = 'nestjs-idempotent-jobs'`,
      );
      await client.end();
      return rows[0]?.count ?? 0;
    };
    // One more listens.
    expect(await countOf()).toBeLessThanOrEqual(6);
    expect(await countOf()).toBeGreaterThan(0);
    await apps.close(app);
    expect(await countOf()).toBe(0);
  });

  it('too few connections are refused with a reason', () => {
    expect(() => IdempotentJobsModule.forRoot({ pool: { max: 2 } })).not.toThrow();
    return expect(apps.fresh(backend, { queues: ['charges'], jobs: { pool: { max: 2 } } })).rejects.toThrow(
      /pool\.max is 2, but must be at least 4/,
    );
  });
});
