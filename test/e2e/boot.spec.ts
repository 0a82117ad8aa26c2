import { IDEMPOTENT_JOBS_MIGRATIONS, InDoubtError, Reconciliation } from 'nestjs-idempotent-jobs';
import { DeadLetterService } from 'nestjs-idempotent-jobs/dead-letters';
import { ConfigurationError } from 'nestjs-idempotent-jobs/errors';
import { RetentionService } from 'nestjs-idempotent-jobs/operate';
import { DataSource } from 'typeorm';
import { describe, expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { enqueue, lettersOf, outcomeOf, settled } from '../support/ledger.js';
import type { Place } from '../support/place.js';
import { processorOf } from '../support/processors.js';
import { BACKENDS, makeEmptyPlace } from '../support/scenario.js';
import { useSessions } from '../support/sessions.js';

/** The lock under which steps of the schema are taken. */
const HOLD_LOCK = `SELECT pg_advisory_lock(hashtextextended('nestjs-idempotent-jobs:public', 0))`;
const [backend = 'postgres'] = BACKENDS;

async function placeAtVersion1(): Promise<Place> {
  const place = await makeEmptyPlace(backend);
  const source = await new DataSource({
    type: 'postgres',
    url: place.databaseUrl,
    migrations: IDEMPOTENT_JOBS_MIGRATIONS.slice(0, 1),
  }).initialize();
  await source.runMigrations();
  await source.destroy();
  return place;
}

describe('boot of an application whose database is in use', () => {
  const apps = useApps();
  const sessions = useSessions();
  const providers = [processorOf('charges', { effect: 'natural' }, () => 'done')];

  it('with an up-to-date schema waits for nobody, whoever holds the lock of the migrations', async () => {
    const { place } = await apps.fresh(backend, { queues: ['charges'] });
    const colleague = await sessions.open(place);
    await colleague.query(HOLD_LOCK);
    const app = await apps.beside(place, { queues: ['charges'], providers });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'completed' });
  });

  it('with steps to take says who holds the lock that they need, and starts once it is free', async () => {
    const place = await placeAtVersion1();
    const colleague = await sessions.open(place);
    await colleague.query(HOLD_LOCK);
    const { rows } = await colleague.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
    const boot = apps.beside(place, { queues: ['charges'] });
    await expect(boot).rejects.toThrow(ConfigurationError);
    await expect(boot).rejects.toThrow(new RegExp(`advisory lock.*process ${rows[0]?.pid}`));
    await colleague.end();
    const app = await apps.beside(place, { queues: ['charges'], providers });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'completed' });
  });

  it('with steps to take keeps nobody from the tables while a long transaction has them, and takes them after it', async () => {
    const place = await placeAtVersion1();
    const handler = await sessions.open(place);
    const insert = (key: string): string =>
      `INSERT INTO job_outcomes (tenant_id, operation_key, queue, job_name, job_id, fingerprint, status)
       VALUES ('acme', '${key}', 'elsewhere', 'charge', 'op-${key}', repeat('0', 64), 'pending')`;
    await handler.query(`BEGIN; ${insert('long')}`);
    const boot = apps.beside(place, { queues: ['charges'], providers });
    boot.catch(() => undefined);
    const other = await sessions.open(place);
    await eventually(
      () => other.query(`SELECT FROM pg_locks WHERE NOT granted AND relation = 'job_outcomes'::regclass`),
      ({ rowCount }) => expect(rowCount).toBeGreaterThan(0),
    );
    // Longer than a careful migration stands in the way, shorter than the transaction lasts.
    await other.query(`SET lock_timeout = '5s'`);
    for (let index = 0; index < 20; index += 1) await other.query(insert(`other:${index}`));
    await handler.query('COMMIT');
    const app = await boot;
    expect(await outcomeOf(app, 'other:19')).toMatchObject({ status: 'pending' });
    // Indexes are built beside what runs already.
    await eventually(
      () => other.query(`SELECT FROM idempotent_jobs_schema WHERE name LIKE '%to be built%'`),
      ({ rowCount }) => expect(rowCount).toBe(0),
    );
    const { rows } = await other.query(
      `SELECT relname FROM pg_index JOIN pg_class ON oid = indexrelid WHERE NOT indisvalid`,
    );
    expect(rows).toEqual([]);
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'completed' });
  });

  it('with nothing but indexes to build starts beside whoever builds them, and builds them where nobody does', async () => {
    const { place } = await apps.fresh(backend, { queues: ['charges'] });
    const colleague = await sessions.open(place);
    await colleague.query(`
      DROP INDEX job_outcomes_carried_by_job;
      UPDATE idempotent_jobs_schema SET name = name || ' (indexes to be built)' WHERE version = 7`);
    const isBuilt = async (): Promise<boolean> =>
      (await colleague.query(`SELECT to_regclass('job_outcomes_carried_by_job') IS NOT NULL AS is_built`))
        .rows[0].is_built;
    await colleague.query(HOLD_LOCK);
    const app = await apps.beside(place, { queues: ['charges'], providers });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'completed' });
    expect(await isBuilt()).toBe(false);
    await colleague.query('SELECT pg_advisory_unlock_all()');
    await apps.beside(place, { queues: ['charges'] });
    await eventually(
      () => colleague.query(`SELECT FROM idempotent_jobs_schema WHERE name LIKE '%to be built%'`),
      ({ rowCount }) => expect(rowCount).toBe(0),
    );
    expect(await isBuilt()).toBe(true);
  });

  it('with indexes to build starts beside transactions that are older, which building waits for', async () => {
    const { place } = await apps.fresh(backend, { queues: ['charges'] });
    const colleague = await sessions.open(place);
    await colleague.query(`
      DROP INDEX job_outcomes_carried_by_job;
      UPDATE idempotent_jobs_schema SET name = name || ' (indexes to be built)' WHERE version = 7`);
    const report = await sessions.open(place);
    await report.query('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM job_outcomes');
    const app = await apps.beside(place, { queues: ['charges'], providers });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'completed' });
    // Nor does it keep an application from ending.
    await apps.close(app);
    await apps.beside(place, { queues: ['charges'], providers });
    await report.query('COMMIT');
    await eventually(
      () => colleague.query(`SELECT FROM idempotent_jobs_schema WHERE name LIKE '%to be built%'`),
      ({ rowCount }) => expect(rowCount).toBe(0),
    );
  });

  it('as a role with the documented privileges alone: it starts, runs, and looks after its ledger', async () => {
    const { place } = await apps.fresh(backend, { queues: ['charges'] });
    const admin = await sessions.open(place);
    const name = `app_${new URL(place.databaseUrl).pathname.slice(1)}`;
    await admin.query(`
      CREATE ROLE ${name} LOGIN;
      REVOKE CREATE ON SCHEMA public FROM PUBLIC;
      GRANT USAGE ON SCHEMA public TO ${name};
      GRANT SELECT ON idempotent_jobs_schema TO ${name};
      GRANT SELECT, INSERT, UPDATE, DELETE ON
        job_outcomes, job_attempts, dead_letters, dead_letter_redrives, job_actions, job_queues TO ${name};
      CREATE TABLE stock (item text);
      GRANT INSERT, SELECT ON stock TO ${name}`);
    const url = new URL(place.databaseUrl);
    url.username = name;
    const app = await apps.beside(
      { ...place, databaseUrl: url.toString() },
      {
        queues: ['charges', 'inventory'],
        providers: [
          processorOf('charges', {}, () => {
            throw new InDoubtError('nobody answered');
          }),
          processorOf(
            'inventory',
            { effect: 'transactional', timeoutMs: 500, retry: { attempts: 1 } },
            async (job, { transaction }) => {
              await transaction.query(`INSERT INTO stock VALUES ('teapot')`);
              if (job.name === 'slow') await transaction.query('SELECT pg_sleep(30)');
            },
          ),
        ],
      },
    );
    await enqueue(app, 'inventory', 'reserve', {}, 'reserve:1');
    expect(await settled(app, 'reserve:1')).toMatchObject({ status: 'completed' });
    await enqueue(app, 'inventory', 'slow', {}, 'reserve:2');
    expect(await settled(app, 'reserve:2')).toMatchObject({ status: 'dead', attempts: 1 });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'in_doubt' });
    await app
      .get(DeadLetterService)
      .resolve({ tenantId: 'acme', operationKey: 'charge:1' }, Reconciliation.applied(), {
        actor: 'ada',
        note: 'looked',
      });
    expect(await outcomeOf(app, 'charge:1')).toMatchObject({ status: 'completed' });
    await app.get(RetentionService).prune();
    expect(await lettersOf(app)).toHaveLength(2);
    await apps.close(app);
    await admin.query(`DROP OWNED BY ${name}; DROP ROLE ${name}`);
  });
});
