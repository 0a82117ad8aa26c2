import type { INestApplicationContext } from '@nestjs/common';
import { IDEMPOTENT_JOBS_MIGRATIONS } from 'nestjs-idempotent-jobs';
import { DeadLetterEntity, JobAttemptEntity, JobOutcomeEntity } from 'nestjs-idempotent-jobs/entities';
import { ConfigurationError } from 'nestjs-idempotent-jobs/errors';
import { DataSource } from 'typeorm';
import { describe, expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
import { enqueue, outcomeOf, settled } from '../support/ledger.js';
import type { Place } from '../support/place.js';
import { processorOf } from '../support/processors.js';
import { BACKENDS, dataSourceOf, makeEmptyPlace } from '../support/scenario.js';
import { useSessions } from '../support/sessions.js';

const [backend = 'postgres'] = BACKENDS.toReversed();

describe('the ledger schema', () => {
  const apps = useApps();
  const sessions = useSessions();
  const processor = processorOf('charges', { effect: 'natural' }, () => 'done');

  it('boot fails clearly when it is missing, and says both ways to get it', async () => {
    const place = await makeEmptyPlace(backend);
    const boot = apps.beside(place, { queues: ['charges'], jobs: { migrations: 'check' } });
    await expect(boot).rejects.toThrow(ConfigurationError);
    await expect(apps.beside(place, { queues: ['charges'], jobs: { migrations: 'check' } })).rejects.toThrow(
      /migrations: 'run'.*IDEMPOTENT_JOBS_MIGRATIONS/,
    );
  });

  it.each(['check', 'run'] as const)(
    'boot with %s fails clearly when a newer package has migrated it',
    async (migrations) => {
      const { app, place } = await apps.fresh(backend, { queues: ['charges'] });
      await dataSourceOf(app).query(
        `INSERT INTO idempotent_jobs_schema (version, name) VALUES (999, 'from the future')`,
      );
      await expect(apps.beside(place, { queues: ['charges'], jobs: { migrations } })).rejects.toThrow(
        /version 999.*newer/,
      );
    },
  );

  describe('at version 1', () => {
    /** What an application left there that ran before the later steps existed. */
    const placeAtVersion1 = async (): Promise<Place> => {
      const place = await makeEmptyPlace(backend);
      const source = await new DataSource({
        type: 'postgres',
        url: place.databaseUrl,
        migrations: IDEMPOTENT_JOBS_MIGRATIONS.slice(0, 1),
      }).initialize();
      await source.runMigrations();
      await source.query(
        `INSERT INTO job_outcomes (tenant_id, operation_key, queue, job_name, job_id, fingerprint, status, result, settled_at)
         VALUES ('acme', 'charge:old', 'charges', 'charge', 'op-old', repeat('0', 64), 'completed', '"old"', clock_timestamp())`,
      );
      await source.destroy();
      return place;
    };
    const versionsOf = (app: INestApplicationContext): Promise<{ version: number }[]> =>
      dataSourceOf(app).query('SELECT version FROM idempotent_jobs_schema ORDER BY version');

    it("boot with 'check' is refused, and says which version it needs and how to get it", async () => {
      const place = await placeAtVersion1();
      await expect(
        apps.beside(place, { queues: ['charges'], jobs: { migrations: 'check' } }),
      ).rejects.toThrow(
        /version 1, but this package needs [2-9]\d*\. Run "npx -p nestjs-idempotent-jobs idempotent-jobs migrate".*migrations: 'run'.*IDEMPOTENT_JOBS_MIGRATIONS/,
      );
    });

    it("boot with 'run' takes the steps it lacks; what was there stays, and operations run", async () => {
      const place = await placeAtVersion1();
      const app = await apps.beside(place, { queues: ['charges'], providers: [processor] });
      const all = IDEMPOTENT_JOBS_MIGRATIONS.map((_, index) => ({ version: index + 1 }));
      expect(await versionsOf(app)).toEqual(all);
      expect(await outcomeOf(app, 'charge:old')).toMatchObject({ status: 'completed', result: 'old' });
      await enqueue(app, 'charges', 'charge', {}, 'charge:1');
      expect(await settled(app, 'charge:1')).toMatchObject({ status: 'completed' });
      await apps.beside(place, { queues: ['charges'], jobs: { migrations: 'check' } });
    });
  });

  describe('at version 7', () => {
    const STEP = `tenant_id, operation_key, queue, job_name, job_id, fingerprint, status, effect, step_of, attempts, fencing_token`;
    /** With a step of a keyed charge that may have been sent, under its old key. */
    const placeAtVersion7 = async (steps = ''): Promise<Place> => {
      const place = await makeEmptyPlace(backend);
      const source = await new DataSource({
        type: 'postgres',
        url: place.databaseUrl,
        migrations: IDEMPOTENT_JOBS_MIGRATIONS.slice(0, 7),
      }).initialize();
      await source.runMigrations();
      await source.query(steps);
      await source.destroy();
      return place;
    };

    it('steps get their new keys, with their history and letters, and keyed ones that may have been sent are not sent under another', async () => {
      const place = await placeAtVersion7(`
        INSERT INTO job_outcomes (${STEP}, doubt_since, repeatable_until, started_at) VALUES
          ('acme', 'order:1/charge', 'orders', 'order', 'op-1', repeat('0', 64), 'retrying', 'keyed', 'order:1', 1, 5,
            clock_timestamp(), 'infinity', clock_timestamp()),
          ('acme', 'order:2/charge', 'orders', 'order', 'op-2', repeat('0', 64), 'retrying', 'keyed', 'order:2', 1, 5,
            NULL, 'infinity', clock_timestamp());
        INSERT INTO job_attempts (tenant_id, operation_key, fencing_token, attempt, started_at, kind)
        VALUES ('acme', 'order:1/charge', 5, 1, clock_timestamp(), 'in_doubt')`);
      const app = await apps.beside(place, { queues: ['orders'] });
      expect(
        await dataSourceOf(app).query(`
          SELECT o.operation_key, step_of, step, repeatable_until <= clock_timestamp() AS is_over, a.kind
          FROM job_outcomes o LEFT JOIN job_attempts a USING (tenant_id, operation_key) ORDER BY step_of`),
      ).toEqual([
        {
          operation_key: 'order:1\u001Fcharge',
          step_of: 'order:1',
          step: 'charge',
          is_over: true,
          kind: 'in_doubt',
        },
        {
          operation_key: 'order:2\u001Fcharge',
          step_of: 'order:2',
          step: 'charge',
          is_over: false,
          kind: null,
        },
      ]);
    });

    it('any number of steps is renamed without keeping others from the table', async () => {
      const place = await placeAtVersion7(`
        INSERT INTO job_outcomes (${STEP}, settled_at)
        SELECT 'acme', 'order:' || n || '/charge', 'orders', 'order', 'op-' || n, repeat('0', 64), 'completed', 'natural',
          'order:' || n, 1, 5, clock_timestamp() FROM generate_series(1, 12000) n`);
      const other = await sessions.open(place);
      await other.query(`SET statement_timeout = '5s'`);
      const boot = apps.beside(place, { queues: ['orders'] });
      boot.catch(() => undefined);
      const renamed = async (): Promise<number> =>
        (await other.query(`SELECT count(*)::integer AS n FROM job_outcomes WHERE operation_key LIKE '%/%'`))
          .rows[0].n;
      const seen = new Set<number>();
      let left: number;
      do seen.add((left = await renamed()));
      while (left > 0);
      await boot;
      // All at once, nobody would have seen it half done.
      expect(seen.size).toBeGreaterThan(2);
    });
  });

  it('is made in a database where nobody may make temporary tables', async () => {
    const place = await makeEmptyPlace(backend);
    const admin = await sessions.open(place);
    const database = new URL(place.databaseUrl).pathname.slice(1);
    const role = `app_${database}`;
    await admin.query(`
      REVOKE ALL ON DATABASE ${database} FROM PUBLIC;
      CREATE ROLE ${role} LOGIN;
      GRANT CONNECT, CREATE ON DATABASE ${database} TO ${role};
      GRANT ALL ON SCHEMA public TO ${role}`);
    const url = new URL(place.databaseUrl);
    url.username = role;
    const app = await apps.beside(
      { ...place, databaseUrl: url.toString() },
      { queues: ['charges'], providers: [processor] },
    );
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'completed' });
    await apps.close(app);
    await admin.query(`DROP OWNED BY ${role}; DROP ROLE ${role}`);
  });

  it("TypeORM's own migrations make it, and a later boot with 'run' finds nothing to do", async () => {
    const place = await makeEmptyPlace(backend);
    const source = await new DataSource({
      type: 'postgres',
      url: place.databaseUrl,
      migrations: [...IDEMPOTENT_JOBS_MIGRATIONS],
    }).initialize();
    expect(await source.runMigrations()).toHaveLength(IDEMPOTENT_JOBS_MIGRATIONS.length);
    await source.destroy();
    const app = await apps.beside(place, {
      queues: ['charges'],
      providers: [processor],
      jobs: { migrations: 'check' },
    });
    await apps.beside(place, { queues: ['charges'], jobs: { migrations: 'run' } });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'completed' });
  });

  it('instances that boot together migrate once', async () => {
    const place = await makeEmptyPlace(backend);
    await Promise.all(Array.from({ length: 4 }, () => apps.beside(place, { queues: ['charges'] })));
  });

  it('may live in a schema of its own', async () => {
    const app = await apps.beside(await makeEmptyPlace(backend), {
      queues: ['charges'],
      providers: [processor],
      jobs: { schema: 'My "jobs"' },
    });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'completed' });
    const tables = await dataSourceOf(app).query<{ schemaname: string }[]>(
      `SELECT schemaname FROM pg_tables WHERE tablename = 'job_outcomes'`,
    );
    expect(tables).toEqual([{ schemaname: 'My "jobs"' }]);
  });

  it('its entities have every column, and read what was written', async () => {
    const { app, place } = await apps.fresh(backend, { queues: ['charges'], providers: [processor] });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    await settled(app, 'charge:1');
    const source = await new DataSource({
      type: 'postgres',
      url: place.databaseUrl,
      entities: [JobOutcomeEntity, DeadLetterEntity, JobAttemptEntity],
      synchronize: true,
    }).initialize();
    try {
      expect(await source.getRepository(JobOutcomeEntity).find()).toMatchObject([
        {
          operationKey: 'charge:1',
          status: 'completed',
          result: 'done',
          repeatableUntil: Infinity,
          redrives: 0,
        },
      ]);
      expect(await source.getRepository(DeadLetterEntity).count()).toBe(0);
      expect(await source.getRepository(JobAttemptEntity).count()).toBe(0);
      for (const { columns, tableName } of source.entityMetadatas) {
        const rows = await source.query<{ name: string }[]>(
          'SELECT column_name AS name FROM information_schema.columns WHERE table_name = $1',
          [tableName],
        );
        expect(columns.map((column) => column.databaseName).sort()).toEqual(
          rows.map(({ name }) => name).sort(),
        );
      }
    } finally {
      await source.destroy();
    }
  });

  it.each([
    ['an unfinished completion', `UPDATE job_outcomes SET settled_at = NULL`],
    [
      'a running operation without a lease',
      `UPDATE job_outcomes SET status = 'running', settled_at = NULL, expires_at = NULL, result = NULL`,
    ],
    ['a result of what has not completed', `UPDATE job_outcomes SET status = 'dead'`],
    ['an unknown status', `UPDATE job_outcomes SET status = 'done'`],
    [
      'a second row for one operation',
      `INSERT INTO job_outcomes (tenant_id, operation_key, queue, job_name, job_id, fingerprint, status) SELECT tenant_id, operation_key, queue, job_name, job_id, fingerprint, 'pending' FROM job_outcomes`,
    ],
  ])('its constraints refuse %s', async (_title, sql) => {
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor] });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    await settled(app, 'charge:1');
    await expect(dataSourceOf(app).query(sql)).rejects.toThrow(/violates (?:check|unique) constraint/);
  });
});
