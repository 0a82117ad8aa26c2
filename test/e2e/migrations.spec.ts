import { IDEMPOTENT_JOBS_MIGRATIONS } from 'nestjs-idempotent-jobs';
import { DeadLetterEntity, JobAttemptEntity, JobOutcomeEntity } from 'nestjs-idempotent-jobs/entities';
import { ConfigurationError } from 'nestjs-idempotent-jobs/errors';
import { DataSource, type Logger, type MigrationInterface, type QueryRunner } from 'typeorm';
import { describe, expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
import { enqueue, settled } from '../support/ledger.js';
import { processorOf } from '../support/processors.js';
import { BACKENDS, dataSourceOf, makeEmptyPlace } from '../support/scenario.js';
import { useSessions } from '../support/sessions.js';

const [backend = 'postgres'] = BACKENDS.toReversed();

/** Of an application, from before it had the ledger. */
class ShopOrders1700000000000 implements MigrationInterface {
  async up(runner: QueryRunner): Promise<void> {
    await runner.query('CREATE TABLE shop_orders ()');
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.query('DROP TABLE shop_orders');
  }
}

describe('the ledger schema', () => {
  const apps = useApps();
  const sessions = useSessions();
  const processor = processorOf('charges', { effect: 'natural' }, () => 'done');

  it('boot fails clearly when it is missing, and says both ways to get it', async () => {
    const place = await makeEmptyPlace(backend);
    const jobs = { migrations: 'check', partitions: undefined } as const;
    await expect(apps.beside(place, { queues: ['charges'], jobs })).rejects.toThrow(ConfigurationError);
    await expect(apps.beside(place, { queues: ['charges'], jobs })).rejects.toThrow(
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

  it("TypeORM's reverting goes past it, says that it stays, and it is found there again", async () => {
    const place = await makeEmptyPlace(backend);
    const said: unknown[] = [];
    const logger = new Proxy({} as Logger, {
      get: (_, name) => (name === 'logMigration' ? (line: string) => said.push(line) : () => undefined),
    });
    const migrations = [ShopOrders1700000000000, ...IDEMPOTENT_JOBS_MIGRATIONS];
    const source = await new DataSource({
      type: 'postgres',
      url: place.databaseUrl,
      migrations,
      logger,
    }).initialize();
    const has = async (table: string): Promise<boolean> =>
      (await source.query<{ has: boolean }[]>(`SELECT to_regclass('${table}') IS NOT NULL AS has`))[0]!.has;
    await source.runMigrations();
    for (const migration of migrations.toReversed()) {
      said.length = 0;
      await source.undoLastMigration();
      if (migration !== ShopOrders1700000000000)
        expect(said.join('\n')).toContain('leaves the ledger as it is');
    }
    expect([await has('shop_orders'), await has('job_outcomes')]).toEqual([false, true]);
    expect(await source.runMigrations()).toHaveLength(migrations.length);
    await source.destroy();
    const app = await apps.beside(place, { queues: ['charges'], providers: [processor] });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'completed' });
  });

  it('of a development version from before the first release is refused, and says how to go on', async () => {
    const place = await makeEmptyPlace(backend);
    const app = await apps.beside(place, { queues: ['charges'] });
    await dataSourceOf(app).query(`UPDATE idempotent_jobs_schema SET name = 'ledger' WHERE version = 1`);
    for (const migrations of ['run', 'check'] as const)
      await expect(apps.beside(place, { queues: ['charges'], jobs: { migrations } })).rejects.toThrow(
        /"public" was made by a development version.*cannot be upgraded\. Give this version another schema/,
      );
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

  it('its entities read what was written, and write nothing', async () => {
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
          origin: 'job',
          redrives: 0,
        },
      ]);
      expect(await source.getRepository(DeadLetterEntity).count()).toBe(0);
      expect(await source.getRepository(JobAttemptEntity).count()).toBe(0);
      const write = source
        .getRepository(JobOutcomeEntity)
        .update({ operationKey: 'charge:1' }, { jobName: 'other' });
      await expect(write).rejects.toThrow('update values are not defined');
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
    ['an unknown origin', `UPDATE job_outcomes SET origin = 'cron'`],
    ['a step of no operation', `UPDATE job_outcomes SET origin = 'step'`],
    [
      'a second row for one operation',
      `INSERT INTO job_outcomes (tenant_id, operation_key, origin, queue, job_name, job_id, fingerprint, status) SELECT tenant_id, operation_key, origin, queue, job_name, job_id, fingerprint, 'pending' FROM job_outcomes`,
    ],
  ])('its constraints refuse %s', async (_title, sql) => {
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor] });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    await settled(app, 'charge:1');
    await expect(dataSourceOf(app).query(sql)).rejects.toThrow(/violates (?:check|unique) constraint/);
  });
});
