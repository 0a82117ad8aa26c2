import { InDoubtError, Reconciliation } from 'nestjs-idempotent-jobs';
import { DeadLetterService } from 'nestjs-idempotent-jobs/dead-letters';
import { RetentionService } from 'nestjs-idempotent-jobs/operate';
import { describe, expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
import { enqueue, lettersOf, outcomeOf, settled } from '../support/ledger.js';
import { processorOf } from '../support/processors.js';
import { BACKENDS, HAS_QUEUES_IN_POSTGRES, makePlace } from '../support/scenario.js';
import { useSessions } from '../support/sessions.js';

/** The lock under which steps of the schema are taken. */
const HOLD_LOCK = `SELECT pg_advisory_lock(hashtextextended('nestjs-idempotent-jobs:public', 0))`;
const [backend = 'postgres'] = BACKENDS;

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

  it.runIf(HAS_QUEUES_IN_POSTGRES)(
    'without the tables of BullMQ, whose worker would take all the time of the process, is refused',
    async () => {
      const place = await makePlace('postgres');
      const connection = { ...place.connection, schema: 'elsewhere' };
      const booting = apps.beside({ ...place, connection }, { queues: ['charges'], providers });
      await expect(booting).rejects.toThrow(/^BullMQ cannot use queue "charges": .*migrate: true/);
      const made = { ...place, connection: { ...connection, migrate: true } };
      const app = await apps.beside(made, { queues: ['charges'], providers });
      await enqueue(app, 'charges', 'charge', {}, 'charge:1');
      expect(await settled(app, 'charge:1')).toMatchObject({ status: 'completed' });
    },
  );

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
            { effect: 'transactional', timeoutMs: 3000, retry: { attempts: 1 } },
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
