import { ConfigurationError } from 'nestjs-idempotent-jobs/errors';
import { afterEach, describe, expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { enqueue, idempotentQueue, lettersOf, numbered, settled } from '../support/ledger.js';
import { HAS_PGBOUNCER, type RunningPgBouncer, startPgBouncer } from '../support/pgbouncer.js';
import { processorOf } from '../support/processors.js';
import { BACKENDS, dataSourceOf, makePlace } from '../support/scenario.js';
import { useSessions } from '../support/sessions.js';

const effects = ['natural', 'keyed', 'unrepeatable', 'transactional'] as const;

describe.skipIf(!HAS_PGBOUNCER).each(BACKENDS)('behind PgBouncer, queues on %s', (backend) => {
  const poolers: RunningPgBouncer[] = [];
  afterEach(async () => {
    await Promise.all(poolers.splice(0).map((pooler) => pooler.stop()));
  });
  const apps = useApps();
  const sessions = useSessions();
  const begin = async (poolMode: 'session' | 'transaction') => {
    const place = await makePlace(backend);
    const pooler = await startPgBouncer(place.databaseUrl, poolMode);
    poolers.push(pooler);
    // BullMQ's own connections to Postgres must not go through a pooler either.
    return { place, through: { ...place, databaseUrl: pooler.url } };
  };
  const queues = [...effects];
  const providers = effects.map((effect) => processorOf(effect, { effect }, () => effect));

  it('in transaction mode the application does not start, and is told how to lead the ledger around it', async () => {
    const { through } = await begin('transaction');
    const boot = apps.beside(through, { queues: ['natural'] });
    await expect(boot).rejects.toThrow(ConfigurationError);
    await expect(apps.beside(through, { queues: ['natural'] })).rejects.toThrow(
      /pool_mode = transaction.*pool: \{ connection/,
    );
  });

  it.each(['transaction', 'session'] as const)(
    'in %s mode, with connections of its own around it where that is needed, every operation runs once',
    async (poolMode) => {
      const { place, through } = await begin(poolMode);
      const { hostname: host, port } = new URL(place.databaseUrl);
      const pool = poolMode === 'session' ? {} : { connection: { host, port: Number(port) } };
      const app = await apps.beside(through, { queues, providers, jobs: { pool } });
      await dataSourceOf(app).query('CREATE TABLE seen (tenant text)');
      const calls = effects.flatMap((effect) =>
        numbered(25).map(async (key) => {
          const operationKey = `${effect}:${key}`;
          await idempotentQueue(app, effect).enqueue('run', {}, { operationKey, tenantId: 'acme' });
          expect(await settled(app, operationKey)).toMatchObject({
            status: 'completed',
            result: effect,
            attempts: 1,
          });
        }),
      );
      await Promise.all(calls);
      // In the application's own transaction, which goes through the pooler.
      await dataSourceOf(app).transaction((transaction) =>
        idempotentQueue(app, 'natural').enqueue(
          'run',
          {},
          { operationKey: 'own', tenantId: 'acme', transaction },
        ),
      );
      expect(await settled(app, 'own')).toMatchObject({ status: 'completed' });
      expect(await lettersOf(app)).toEqual([]);
    },
  );

  it('a tenant that handlers set for their session is never seen by another client of the pooler', async () => {
    const { place, through } = await begin('transaction');
    const { hostname: host, port } = new URL(place.databaseUrl);
    const app = await apps.beside(through, {
      queues: ['transactional'],
      providers: [
        processorOf('transactional', { effect: 'transactional' }, (_job, { transaction }) =>
          transaction.query(`SELECT set_config('app.tenant_id', 'leaked', false)`),
        ),
      ],
      jobs: { pool: { connection: { host, port: Number(port) } } },
    });
    const seen = new Set<unknown>();
    const over = new AbortController();
    const others = Array.from({ length: 4 }, async () => {
      const client = await sessions.open(through);
      while (!over.signal.aborted) {
        const { rows } = await client.query(`SELECT current_setting('app.tenant_id', true) AS tenant`);
        seen.add(rows[0].tenant);
      }
    });
    for (const key of numbered(60)) await enqueue(app, 'transactional', 'run', {}, key);
    for (const key of numbered(60)) expect(await settled(app, key)).toMatchObject({ status: 'completed' });
    over.abort();
    await Promise.all(others);
    expect([...seen].filter((tenant) => tenant !== null && tenant !== '')).toEqual([]);
  });

  it('another process hears at once of what is committed', async () => {
    const { place, through } = await begin('transaction');
    const { hostname: host, port } = new URL(place.databaseUrl);
    const jobs = { pool: { connection: { host, port: Number(port) } }, dispatch: { pollMs: 600_000 } };
    const producer = await apps.beside(through, {
      queues: ['natural'],
      jobs: { ...jobs, dispatch: { enabled: false } },
    });
    await apps.beside(through, {
      queues: ['natural'],
      providers: [processorOf('natural', { effect: 'natural' }, () => 1)],
      jobs,
    });
    await enqueue(producer, 'natural', 'run', {}, 'heard');
    await eventually(
      () => settled(producer, 'heard'),
      ({ status }) => expect(status).toBe('completed'),
    );
  });

  it('another database than the application’s is refused', async () => {
    const { place, through } = await begin('session');
    const other = await makePlace(backend);
    const { hostname: host, port, pathname } = new URL(other.databaseUrl);
    void place;
    await expect(
      apps.beside(through, {
        queues: ['natural'],
        jobs: { pool: { connection: { host, port: Number(port), database: pathname.slice(1) } } },
      }),
    ).rejects.toThrow(/another database/);
  });
});
