import type { INestApplicationContext } from '@nestjs/common';
import { IDEMPOTENT_JOBS_MIGRATIONS } from 'nestjs-idempotent-jobs';
import { ConfigurationError } from 'nestjs-idempotent-jobs/errors';
import { DataSource } from 'typeorm';
import { afterEach, describe, expect, it } from 'vitest';
import { Database } from '../../libs/idempotent-jobs/dist/ledger/postgres/database.js';
import {
  migrationOf,
  SCHEMA_STEPS,
  type SchemaStep,
} from '../../libs/idempotent-jobs/dist/ledger/postgres/migrations.js';
import { ensureSchema } from '../../libs/idempotent-jobs/dist/ledger/postgres/schema-guard.js';
import { useApps } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { enqueue, settled } from '../support/ledger.js';
import type { Place } from '../support/place.js';
import { processorOf } from '../support/processors.js';
import { BACKENDS, dataSourceOf, makeEmptyPlace } from '../support/scenario.js';
import { useSessions } from '../support/sessions.js';

/** The lock under which steps of the schema are taken. */
const HOLD_LOCK = `SELECT pg_advisory_lock(hashtextextended('nestjs-idempotent-jobs:public', 0))`;
const [backend = 'postgres'] = BACKENDS;

/** What a later version might do: one column more, filled for the rows that are there, and an index on it. */
const NEXT_VERSION = SCHEMA_STEPS.length + 1;
const COLOURED: SchemaStep = {
  version: NEXT_VERSION,
  name: 'coloured',
  before: 'ALTER TABLE {schema}.job_outcomes ADD COLUMN IF NOT EXISTS colour text',
  batch: `
UPDATE {schema}.job_outcomes o SET colour = 'red' FROM (
  SELECT tenant_id, operation_key FROM {schema}.job_outcomes WHERE colour IS NULL LIMIT 5000 FOR UPDATE SKIP LOCKED
) old WHERE o.tenant_id = old.tenant_id AND o.operation_key = old.operation_key
RETURNING true`,
  sql: `
UPDATE {schema}.job_outcomes SET colour = 'red' WHERE colour IS NULL;
ALTER TABLE {schema}.job_outcomes ALTER COLUMN colour SET DEFAULT 'red'`,
  indexes: ['INDEX job_outcomes_colour ON {schema}.job_outcomes (colour)'],
};
const LATER_STEPS = [...SCHEMA_STEPS, COLOURED];

const ROW = 'tenant_id, operation_key, origin, queue, job_name, job_id, fingerprint, status';

describe('the upgrade of a ledger that is in use', () => {
  const apps = useApps();
  const sessions = useSessions();
  const opened = new Set<Database>();
  const providers = [processorOf('charges', { effect: 'natural' }, () => 'done')];

  afterEach(async () => {
    for (const database of opened) {
      await database.close();
      await database.dataSource.destroy();
    }
    opened.clear();
  });

  /** An application of today, and the ledger as one of a later version sees it. */
  const begin = async (): Promise<{ app: INestApplicationContext; place: Place; later: Database }> => {
    const { app, place } = await apps.fresh(backend, { queues: ['charges'], providers });
    return { app, place, later: await laterIn(place) };
  };
  const laterIn = async ({ databaseUrl }: Place): Promise<Database> => {
    const source = await new DataSource({ type: 'postgres', url: databaseUrl }).initialize();
    const database = new Database(source, 'public');
    opened.add(database);
    return database;
  };
  const upgrade = (database: Database, meanwhile?: (building: Promise<void>) => void): Promise<void> =>
    ensureSchema(database, 'run', meanwhile, LATER_STEPS);
  const runs = async (app: INestApplicationContext, key: string): Promise<void> => {
    await enqueue(app, 'charges', 'charge', {}, key);
    expect(await settled(app, key)).toMatchObject({ status: 'completed' });
  };
  const isBuilt = async (app: INestApplicationContext): Promise<boolean> => {
    const [index] = await dataSourceOf(app).query<{ indisvalid: boolean }[]>(
      `SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('job_outcomes_colour')`,
    );
    return index?.indisvalid === true;
  };

  it("with 'check' is refused, and says which version is needed and how to get it", async () => {
    const { later } = await begin();
    await expect(ensureSchema(later, 'check', undefined, LATER_STEPS)).rejects.toThrow(
      new RegExp(
        `version ${SCHEMA_STEPS.length}, but this package needs ${NEXT_VERSION}\\. Run "npx -p nestjs-idempotent-jobs idempotent-jobs migrate".*migrations: 'run'.*IDEMPOTENT_JOBS_MIGRATIONS`,
      ),
    );
  });

  it('takes the steps it lacks, keeps what is there, and lets operations run', async () => {
    const { app, later } = await begin();
    await runs(app, 'charge:1');
    await upgrade(later);
    expect(await dataSourceOf(app).query('SELECT operation_key, colour FROM job_outcomes')).toEqual([
      { operation_key: 'charge:1', colour: 'red' },
    ]);
    expect(
      await dataSourceOf(app).query('SELECT version, name FROM idempotent_jobs_schema ORDER BY version'),
    ).toEqual(LATER_STEPS.map(({ version, name }) => ({ version, name })));
    expect(await isBuilt(app)).toBe(true);
    await runs(app, 'charge:2');
  });

  it('by instances that begin together takes each step once', async () => {
    const { app, place, later } = await begin();
    const others = await Promise.all([laterIn(place), laterIn(place), laterIn(place)]);
    await Promise.all([later, ...others].map((database) => upgrade(database)));
    expect(await isBuilt(app)).toBe(true);
  });

  it('changes any number of rows without keeping others from the table', async () => {
    const { place, later } = await begin();
    const other = await sessions.open(place);
    await other.query(`
      INSERT INTO job_outcomes (${ROW}, settled_at)
      SELECT 'acme', 'old:' || n, 'job', 'charges', 'charge', 'op-' || n, repeat('0', 64), 'completed', clock_timestamp()
      FROM generate_series(1, 12000) n;
      SET statement_timeout = '5s'`);
    const upgrading = upgrade(later);
    upgrading.catch(() => undefined);
    const left = async (): Promise<number> =>
      (
        await other.query(
          `SELECT count(*)::integer AS n FROM job_outcomes o WHERE to_jsonb(o)->>'colour' IS NULL`,
        )
      ).rows[0].n;
    while ((await left()) > 0);
    await upgrading;
    // A row bears the transaction that changed it last: they were not changed all at once.
    const { rows } = await other.query('SELECT DISTINCT xmin::text FROM job_outcomes');
    expect(rows.length).toBeGreaterThan(2);
  });

  it('says who holds the lock that a step needs, and takes it once it is free', async () => {
    const { app, place, later } = await begin();
    const colleague = await sessions.open(place);
    await colleague.query(HOLD_LOCK);
    const { rows } = await colleague.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
    const upgrading = upgrade(later);
    await expect(upgrading).rejects.toThrow(ConfigurationError);
    await expect(upgrading).rejects.toThrow(new RegExp(`advisory lock.*process ${rows[0]?.pid}`));
    await colleague.end();
    await upgrade(later);
    await runs(app, 'charge:1');
  });

  it('keeps nobody from the tables while a long transaction has them, and takes its steps after it', async () => {
    const { app, place, later } = await begin();
    const handler = await sessions.open(place);
    const insert = (key: string): string =>
      `INSERT INTO job_outcomes (${ROW})
       VALUES ('acme', '${key}', 'job', 'elsewhere', 'charge', 'op-${key}', repeat('0', 64), 'pending')`;
    await handler.query(`BEGIN; ${insert('long')}`);
    const upgrading = upgrade(later);
    upgrading.catch(() => undefined);
    const other = await sessions.open(place);
    await eventually(
      () => other.query(`SELECT FROM pg_locks WHERE NOT granted AND relation = 'job_outcomes'::regclass`),
      ({ rowCount }) => expect(rowCount).toBeGreaterThan(0),
    );
    // Longer than a careful migration stands in the way, shorter than the transaction lasts.
    await other.query(`SET lock_timeout = '5s'`);
    for (let index = 0; index < 20; index += 1) await other.query(insert(`other:${index}`));
    await handler.query('COMMIT');
    await upgrading;
    expect(await isBuilt(app)).toBe(true);
    await runs(app, 'charge:1');
  });

  it('with nothing but indexes to build goes on beside whoever builds them, and builds them where nobody does', async () => {
    const { app, place, later } = await begin();
    await upgrade(later);
    await dataSourceOf(app).query(`
      DROP INDEX job_outcomes_colour;
      UPDATE idempotent_jobs_schema SET name = name || ' (indexes to be built)' WHERE version = ${NEXT_VERSION}`);
    const colleague = await sessions.open(place);
    await colleague.query(HOLD_LOCK);
    let building: Promise<void> = Promise.reject(new Error('Nothing is being built'));
    building.catch(() => undefined);
    await upgrade(later, (work) => {
      building = work;
    });
    await runs(app, 'charge:1');
    expect(await isBuilt(app)).toBe(false);
    await colleague.query('SELECT pg_advisory_unlock_all()');
    await building;
    expect(await isBuilt(app)).toBe(true);
  });

  it('builds indexes after transactions that are older, which do not keep the process from ending, and the next one finishes', async () => {
    const { app, place, later } = await begin();
    const report = await sessions.open(place);
    await report.query('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM job_queues');
    let building: Promise<void> = Promise.reject(new Error('Nothing is being built'));
    building.catch(() => undefined);
    await upgrade(later, (work) => {
      building = work;
    });
    building.catch(() => undefined);
    // Ends in the middle of the building, which leaves an index behind that nothing uses.
    await eventually(
      () => dataSourceOf(app).query(`SELECT to_regclass('job_outcomes_colour') AS name`),
      ([row]) => expect(row.name).not.toBeNull(),
    );
    await later.close();
    await expect(building).rejects.toThrow();
    await runs(app, 'charge:1');
    const next = await laterIn(place);
    const finished = upgrade(next);
    await report.query('COMMIT');
    await finished;
    expect(await isBuilt(app)).toBe(true);
    expect(
      await dataSourceOf(app).query(`SELECT FROM idempotent_jobs_schema WHERE name LIKE '%to be built%'`),
    ).toEqual([]);
  });

  it("TypeORM's own migrations and 'run' each find nothing to do where the other was first", async () => {
    const colour = migrationOf('IdempotentJobsColoured1999999999999', COLOURED);
    const migrateIn = async ({ databaseUrl: url }: Place): Promise<void> => {
      const migrations = [...IDEMPOTENT_JOBS_MIGRATIONS, colour];
      const source = await new DataSource({ type: 'postgres', url, migrations }).initialize();
      expect(await source.runMigrations()).toHaveLength(migrations.length);
      await source.destroy();
    };
    const place = await makeEmptyPlace(backend);
    await migrateIn(place);
    await upgrade(await laterIn(place));
    const { app, place: other, later } = await begin();
    await upgrade(later);
    await migrateIn(other);
    await runs(app, 'charge:1');
  });
});
