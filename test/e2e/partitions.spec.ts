import { readFileSync } from 'node:fs';
import type { INestApplicationContext, LoggerService } from '@nestjs/common';
import {
  IDEMPOTENT_JOBS_MIGRATIONS,
  idempotentJobsMigrations,
  InDoubtError,
  OutcomeService,
  PermanentError,
  Reconciliation,
  TransientError,
} from 'nestjs-idempotent-jobs';
import { IdempotencyService } from 'nestjs-idempotent-jobs/calls';
import { DeadLetterService } from 'nestjs-idempotent-jobs/dead-letters';
import { ConfigurationError } from 'nestjs-idempotent-jobs/errors';
import { Doctor, IdempotentJobsHealthIndicator } from 'nestjs-idempotent-jobs/observe';
import { RetentionService } from 'nestjs-idempotent-jobs/operate';
import { prometheusMetrics } from 'nestjs-idempotent-jobs/prometheus';
import type { Client } from 'pg';
import { Registry } from 'prom-client';
import { DataSource } from 'typeorm';
import { describe, expect, it } from 'vitest';
import { CLAIM } from '../../libs/idempotent-jobs/dist/ledger/claim/claim.statement.js';
import { COMPLETE } from '../../libs/idempotent-jobs/dist/ledger/claim/complete.statement.js';
import { Database } from '../../libs/idempotent-jobs/dist/ledger/postgres/database.js';
import { schemaSteps, type SchemaStep } from '../../libs/idempotent-jobs/dist/ledger/postgres/migrations.js';
import { ensureSchema } from '../../libs/idempotent-jobs/dist/ledger/postgres/schema-guard.js';
import type { Statement } from '../../libs/idempotent-jobs/dist/ledger/postgres/statement.js';
import { useApps, useOneApp } from '../support/apps.js';
import { cliIn, jsonOf } from '../support/cli.js';
import { eventually } from '../support/eventually.js';
import {
  asTenant,
  deliver,
  enqueue,
  idempotentQueue,
  lettersOf,
  outcomeOf,
  settled,
  stepOf,
} from '../support/ledger.js';
import { parseScrape } from '../support/parse-scrape.js';
import type { Place } from '../support/place.js';
import { identifyPlain, processorOf, reconcilingProcessorOf, Scripts } from '../support/processors.js';
import { BACKENDS, dataSourceOf, makeEmptyPlace } from '../support/scenario.js';
import { useSessions } from '../support/sessions.js';

const PARTITIONS = 4;
const BY = { actor: 'ada', note: 'looked' };
const RETRY = { attempts: 3, backoff: { baseMs: 10, capMs: 20 } };

/** Enough to be in several partitions. */
const TENANTS = Array.from({ length: 8 }, (_, index) => `tenant-${index}`);

/** The partitions that operations of a key are in, by tenant. */
async function partitionsOf(app: INestApplicationContext, key: string): Promise<Map<string, string>> {
  const rows = await dataSourceOf(app).query<{ tenant_id: string; partition: string }[]>(
    'SELECT tenant_id, tableoid::regclass::text AS partition FROM job_outcomes WHERE operation_key = $1',
    [key],
  );
  return new Map(rows.map(({ tenant_id: tenant, partition }) => [tenant, partition]));
}

describe.each(BACKENDS)('a ledger in partitions, on %s', (backend) => {
  const scripts = new Scripts();
  const registry = new Registry();
  let place: Place;
  const app = useOneApp(async () => (place = await makeEmptyPlace(backend)), {
    queues: ['charges', 'asked', { name: 'hooks', bundle: { max: 50 } }],
    providers: [
      processorOf(
        'charges',
        { effect: 'natural', retry: RETRY, timeoutMs: 10_000, identify: identifyPlain },
        scripts.handler,
      ),
      reconcilingProcessorOf(
        'asked',
        {
          effect: 'reconciled',
          timeoutMs: 10_000,
          reconcile: { afterMs: [10], thenEveryMs: 100, untilMs: 100_000 },
        },
        () => {
          throw new InDoubtError('no answer');
        },
        ({ operationKey }) => Reconciliation.applied(`found ${operationKey}`),
      ),
      processorOf('hooks', { effect: 'keyed', timeoutMs: 10_000 }, (job) => job.data),
    ],
    jobs: { partitions: PARTITIONS, metrics: [prometheusMetrics({ registry })] },
  });
  const letters = (): DeadLetterService => app().get(DeadLetterService);

  it('has the operations of a tenant in one partition, and those of others under the same key in others', async () => {
    const runs: string[] = [];
    const own = TENANTS.map(() =>
      scripts.tenantWith((_job, { tenantId }) => (runs.push(tenantId), tenantId)),
    );
    for (const tenant of own) {
      await enqueue(app(), 'charges', 'charge', {}, 'charge:1', tenant);
      await enqueue(app(), 'charges', 'charge', {}, 'charge:2', tenant);
    }
    for (const tenant of own)
      expect(await settled(app(), 'charge:1', tenant)).toMatchObject({ status: 'completed', result: tenant });
    for (const tenant of own) await settled(app(), 'charge:2', tenant);
    expect(runs.toSorted()).toEqual([...own, ...own].toSorted());
    const first = await partitionsOf(app(), 'charge:1');
    expect(first).toEqual(await partitionsOf(app(), 'charge:2'));
    expect(new Set(first.values()).size).toBeGreaterThan(1);
  });

  it('answers duplicates, also those that are delivered at the same time, and refuses another request', async () => {
    let runs = 0;
    const tenant = scripts.tenantWith(() => (runs += 1));
    await Promise.all(Array.from({ length: 5 }, () => deliver(app(), 'charges', 'charge:1', {}, tenant)));
    expect(await settled(app(), 'charge:1', tenant)).toMatchObject({ status: 'completed', result: 1 });
    await enqueue(app(), 'charges', 'charge', {}, 'charge:2', tenant);
    await settled(app(), 'charge:2', tenant);
    expect(await enqueue(app(), 'charges', 'charge', {}, 'charge:2', tenant)).toMatchObject({
      duplicate: true,
      result: 2,
    });
    await expect(enqueue(app(), 'charges', 'charge', { other: 1 }, 'charge:2', tenant)).rejects.toThrow(
      /already exists with another payload/,
    );
    expect(runs).toBe(2);
  });

  it('retries, and remembers steps and guarded calls', async () => {
    const runs: string[] = [];
    const tenant = scripts.tenantWith(async (_job, { step, attempt }) => {
      const made = await step('charge', () => runs.push('charge'));
      const told = await app()
        .get(IdempotencyService)
        .once('receipt:1', () => runs.push('receipt'));
      if (attempt < 3) throw new TransientError('busy');
      return [made, told];
    });
    await enqueue(app(), 'charges', 'charge', {}, 'charge:1', tenant);
    expect(await settled(app(), 'charge:1', tenant)).toMatchObject({
      status: 'completed',
      attempts: 3,
      result: [1, 2],
    });
    expect(runs).toEqual(['charge', 'receipt']);
    expect(await stepOf(app(), 'charge:1', 'charge', tenant)).toMatchObject({ status: 'completed' });
  });

  it('asks about a doubt, and completes what has happened', async () => {
    await enqueue(app(), 'asked', 'charge', {}, 'charge:1', 'asking');
    expect(await settled(app(), 'charge:1', 'asking')).toMatchObject({
      status: 'completed',
      result: 'found charge:1',
    });
  });

  it('buries what fails for good, runs it again by a redrive of one and of many, and resolves doubts by hand', async () => {
    let isBroken = true;
    const tenant = scripts.tenantWith((_job, { operationKey }) => {
      if (isBroken) throw new PermanentError('no such account');
      return operationKey;
    });
    for (const key of ['charge:1', 'charge:2', 'charge:3']) {
      await enqueue(app(), 'charges', 'charge', {}, key, tenant);
      expect(await settled(app(), key, tenant)).toMatchObject({ status: 'dead' });
    }
    isBroken = false;
    const [letter] = await lettersOf(app(), tenant);
    await letters().redrive(letter?.id as string, BY);
    await letters().redriveMany({ queue: 'charges', tenantId: tenant }, { ...BY, ratePerSecond: 100 });
    for (const key of ['charge:1', 'charge:2', 'charge:3'])
      await eventually(
        () => outcomeOf(app(), key, tenant),
        (outcome) => expect(outcome).toMatchObject({ status: 'completed', result: key }),
      );
    await eventually(
      () => lettersOf(app(), tenant),
      (found) => expect(found.map(({ resolution }) => resolution)).toEqual(Array(3).fill('redriven')),
    );
  });

  it('takes operations of a transaction that commits, and none of one that does not', async () => {
    const [kept, dropped] = [scripts.tenantWith(() => 'kept'), scripts.tenantWith(() => 'never')];
    const charge = (tenantId: string, transaction: object) =>
      idempotentQueue(app(), 'charges').enqueue(
        'charge',
        {},
        { operationKey: 'charge:1', tenantId, transaction: transaction as never },
      );
    await dataSourceOf(app()).transaction((manager) => charge(kept, manager));
    await dataSourceOf(app())
      .transaction(async (manager) => {
        await charge(dropped, manager);
        throw new Error('changed my mind');
      })
      .catch(() => undefined);
    expect(await settled(app(), 'charge:1', kept)).toMatchObject({ result: 'kept' });
    expect(await outcomeOf(app(), 'charge:1', dropped)).toBeUndefined();
  });

  it('works off bundles of operations in several partitions', async () => {
    const hooks = Array.from({ length: 200 }, (_, n) => ({
      name: 'hook',
      payload: { n },
      operationKey: `hook:${n}`,
      tenantId: TENANTS[n % TENANTS.length] as string,
    }));
    await idempotentQueue(app(), 'hooks').enqueueMany(hooks);
    for (const { operationKey, tenantId, payload } of hooks)
      expect(await settled(app(), operationKey, tenantId)).toMatchObject({
        status: 'completed',
        result: payload,
      });
  });

  it('prunes what is past its retention with its steps, and erases one tenant only', async () => {
    const handler = scripts.tenantWith(async (_job, { step }) => {
      await step('first', () => 'done');
    });
    const [old, young] = [handler, scripts.tenantWith(() => 'done')];
    for (const tenant of [old, young]) {
      await enqueue(app(), 'charges', 'charge', {}, 'charge:1', tenant);
      await settled(app(), 'charge:1', tenant);
    }
    await dataSourceOf(app()).query(
      `UPDATE job_outcomes SET settled_at = settled_at - interval '8 days', expires_at = expires_at - interval '8 days'
       WHERE tenant_id = $1`,
      [old],
    );
    const retention = app().get(RetentionService);
    // The operation first, and its step when nothing needs it any more.
    expect((await retention.prune()).operations).toBeGreaterThan(0);
    await retention.prune();
    expect(await outcomeOf(app(), 'charge:1', old)).toBeUndefined();
    expect(await stepOf(app(), 'charge:1', 'first', old)).toBeUndefined();
    expect(await outcomeOf(app(), 'charge:1', young)).toMatchObject({ status: 'completed' });

    const other = scripts.tenantWith(() => 'done');
    await enqueue(app(), 'charges', 'charge', {}, 'charge:1', other);
    await settled(app(), 'charge:1', other);
    expect(await retention.erase({ tenantId: young, ...BY })).toMatchObject({ operations: 1 });
    expect(await outcomeOf(app(), 'charge:1', young)).toBeUndefined();
    expect(await outcomeOf(app(), 'charge:1', other)).toMatchObject({ status: 'completed' });
  });

  it('is seen by doctor, health, metrics and the command line as any other', async () => {
    const tenant = scripts.tenantWith(() => {
      throw new PermanentError('no');
    });
    await enqueue(app(), 'charges', 'charge', {}, 'charge:1', tenant);
    await settled(app(), 'charge:1', tenant);
    expect(app().get(Doctor).report().findings).not.toContainEqual(
      expect.objectContaining({ severity: 'error' }),
    );
    const health = app().get(IdempotentJobsHealthIndicator);
    expect(await health.ledger()).toMatchObject({ ledger: { status: 'up' } });
    expect(await health.queue('charges')).toMatchObject({ charges: { deadLetters: 1, worker: 'running' } });
    await eventually(
      async () => parseScrape(await registry.metrics()).series,
      (series) =>
        expect(series['dead_letter_open{queue="charges",reason="permanent_error"}']).toBeGreaterThan(0),
    );
    const status = jsonOf(await cliIn(place, 'status', '--queue', 'charges', '--json'));
    expect(status.queues).toMatchObject([{ queue: 'charges', openLetters: 1 }]);
    expect(await cliIn(place, 'prune', '--dry-run')).toMatchObject({ code: 0 });
    expect(await cliIn(place, 'history', '--tenant', tenant, '--key', 'charge:1')).toMatchObject({ code: 0 });
    expect(await cliIn(place, 'redispatch', '--dry-run')).toMatchObject({ code: 0 });
  });
});

/** Keeps the warnings of an application. */
function warningsIn(lines: string[]): LoggerService {
  const nothing = (): void => undefined;
  return { log: nothing, error: nothing, warn: (line: string) => void lines.push(line) };
}

const [backend = 'postgres'] = BACKENDS;

describe('partitions of a ledger', () => {
  const apps = useApps();
  const sessions = useSessions();
  const providers = [processorOf('charges', { effect: 'natural', timeoutMs: 10_000 }, () => 'done')];
  const partitioned = async (partitions: number | undefined, place?: Place) => {
    const where = place ?? (await makeEmptyPlace(backend));
    return {
      place: where,
      app: await apps.beside(where, { queues: ['charges'], providers, jobs: { partitions } }),
    };
  };
  const runs = async (app: INestApplicationContext, key: string): Promise<void> => {
    await enqueue(app, 'charges', 'charge', {}, key);
    expect(await settled(app, key)).toMatchObject({ status: 'completed' });
  };
  /** The warnings about partitions of an application that asks for so many in that place. */
  const warned = async (place: Place, partitions: number | undefined): Promise<string[]> => {
    const lines: string[] = [];
    const app = await apps.beside(place, {
      queues: ['charges'],
      providers,
      jobs: { partitions },
      logger: warningsIn(lines),
    });
    await runs(app, `charge:${partitions}`);
    await apps.close(app);
    return lines.filter((line) => line.includes('partitions'));
  };

  it('have the constraints, indexes and replica identity of the table, and keep them in later versions', async () => {
    const place = await makeEmptyPlace(backend);
    const source = await new DataSource({ type: 'postgres', url: place.databaseUrl }).initialize();
    const database = new Database(source, 'public');
    const [first, ...rest] = schemaSteps(PARTITIONS);
    await ensureSchema(database, 'run', undefined, [first as SchemaStep]);
    const { app } = await partitioned(PARTITIONS, place);
    await runs(app, 'charge:1');
    const coloured: SchemaStep = {
      version: rest.length + 2,
      name: 'coloured',
      sql: 'ALTER TABLE {schema}.job_outcomes ADD COLUMN colour text',
      indexes: ['INDEX job_outcomes_colour ON {schema}.job_outcomes (colour) WHERE colour IS NOT NULL'],
    };
    await ensureSchema(database, 'run', undefined, [first as SchemaStep, ...rest, coloured]);
    const partitions = await source.query(
      `SELECT c.relname, c.relreplident, count(DISTINCT i.indexrelid)::integer AS indexes,
         bool_and(i.indisvalid) AS are_valid,
         (SELECT count(*)::integer FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype IN ('c', 'u')) AS constraints
       FROM pg_class c JOIN pg_index i ON i.indrelid = c.oid
       WHERE c.relname ~ '^job_outcomes(_p[0-9])?$' GROUP BY c.oid ORDER BY c.relname`,
    );
    const [{ indexes, constraints }] = partitions;
    expect(indexes).toBeGreaterThan(10);
    expect(constraints).toBeGreaterThan(10);
    expect(partitions).toEqual(
      ['job_outcomes', ...Array.from({ length: PARTITIONS }, (_, index) => `job_outcomes_p${index}`)].map(
        (relname) => ({ relname, relreplident: 'i', indexes, are_valid: true, constraints }),
      ),
    );
    await runs(app, 'charge:2');
    await database.close();
    await source.destroy();
  });

  it('finish an index whose building was interrupted', async () => {
    const { app, place } = await partitioned(PARTITIONS);
    const source = await new DataSource({ type: 'postgres', url: place.databaseUrl }).initialize();
    const database = new Database(source, 'public');
    const steps = schemaSteps(PARTITIONS);
    const version = steps.length + 1;
    const index = 'INDEX job_outcomes_colour ON {schema}.job_outcomes (job_name)';
    // One partition has built its index and not handed it in, another has failed to, as after a crash.
    await source.query(`
      CREATE INDEX job_outcomes_colour ON ONLY job_outcomes (job_name);
      CREATE INDEX job_outcomes_p0_colour ON job_outcomes_p0 (job_name);
      CREATE INDEX job_outcomes_p1_colour ON job_outcomes_p1 (job_name);
      UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'job_outcomes_p1_colour'::regclass;
      INSERT INTO idempotent_jobs_schema (version, name) VALUES (${version}, 'coloured (indexes to be built)')`);
    await ensureSchema(database, 'run', undefined, [
      ...steps,
      { version, name: 'coloured', sql: '', indexes: [index] },
    ]);
    expect(
      await source.query(
        `SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
         WHERE c.relname LIKE '%_colour' AND i.indisvalid ORDER BY c.relname`,
      ),
    ).toEqual(['', '_p0', '_p1', '_p2', '_p3'].map((infix) => ({ relname: `job_outcomes${infix}_colour` })));
    await runs(app, 'charge:1');
    await database.close();
    await source.destroy();
  });

  it.each([0, 20_000])(
    'are not read but for the tenant’s by a claim and a record that were planned with %i operations',
    async (count) => {
      const { app, place } = await partitioned(8);
      await apps.close(app);
      const client = await sessions.open(place);
      await client.query(`
        INSERT INTO job_outcomes (tenant_id, operation_key, origin, queue, job_name, job_id, fingerprint, status, settled_at)
        SELECT 'tenant-' || n % 100, 'old:' || n, 'job', 'charges', 'charge', 'op-' || n, repeat('0', 64), 'completed', now()
        FROM generate_series(1, ${count}) n;
        INSERT INTO job_outcomes (tenant_id, operation_key, origin, queue, job_name, job_id, fingerprint, status)
        VALUES ('acme', 'charge:1', 'job', 'charges', 'charge', 'op-1', repeat('0', 64), 'pending');
        INSERT INTO job_outcomes (
          tenant_id, operation_key, origin, queue, job_name, job_id, fingerprint, status, lease_expires_at, run_id, started_at,
          attempts, fencing_token)
        VALUES ('acme', 'charge:2', 'job', 'charges', 'charge', 'op-2', repeat('0', 64), 'running', 'infinity', 'run', now(), 1, 7);
        SET enable_seqscan = off;
        SET plan_cache_mode = force_generic_plan`);
      const { rows } = await client.query(
        `SELECT tableoid::regclass::text AS name FROM job_outcomes WHERE tenant_id = 'acme' LIMIT 1`,
      );
      const only = [rows[0]?.name];
      expect(await readBy(client, CLAIM, CLAIM_OF_ONE)).toEqual(only);
      expect(await readBy(client, COMPLETE, RECORD_OF_ONE)).toEqual(only);
    },
  );

  it('are not made of an existing ledger: the application says so at each start, and goes on', async () => {
    const { app, place } = await partitioned(undefined);
    await apps.close(app);
    expect(await warned(place, 8)).toEqual([
      expect.stringMatching(
        /"public" is one ordinary table, but 8 partitions are asked for.*never moved.*docs\/scaling\.md/,
      ),
    ]);
    const refused = await cliIn(place, 'migrate', '--partitions', '8');
    expect(refused).toMatchObject({ code: 1, stdout: '' });
    expect(refused.stderr).toMatch(/is one ordinary table, but 8 partitions are asked for/);
    expect(await warned(place, undefined)).toEqual([]);
  });

  it('stay as many as they are when another number is asked for, and are fine when none is', async () => {
    const { app, place } = await partitioned(PARTITIONS);
    await apps.close(app);
    expect(await warned(place, 8)).toEqual([
      expect.stringMatching(/has 4 partitions, but 8 partitions are asked for.*ask for 4/),
    ]);
    expect(await warned(place, PARTITIONS)).toEqual([]);
    expect(await warned(place, undefined)).toEqual([]);
    expect(await cliIn(place, 'migrate', '--partitions', '4')).toMatchObject({ code: 0 });
    expect(await cliIn(place, 'migrate')).toMatchObject({ code: 0 });
  });

  it('are made by the command line, which refuses numbers that make no sense', async () => {
    const place = await makeEmptyPlace(backend);
    for (const wrong of ['0', '1', '65', '8.5', 'many'])
      expect(await cliIn(place, 'migrate', '--partitions', wrong)).toMatchObject({
        code: 2,
        stderr: expect.stringMatching(/--partitions must be a whole number from 2 to 64/),
      });
    expect(await cliIn(place, 'migrate', '--partitions', '4')).toMatchObject({ code: 0 });
    expect(await warned(place, 4)).toEqual([]);
  });

  it('are made by TypeORM’s migrations, which refuse an existing ledger without them', async () => {
    const migrate = async ({ databaseUrl: url }: Place, partitions: number): Promise<unknown> => {
      const migrations = [...idempotentJobsMigrations({ partitions })];
      const source = await new DataSource({ type: 'postgres', url, migrations }).initialize();
      try {
        return await source.runMigrations();
      } finally {
        await source.destroy();
      }
    };
    const place = await makeEmptyPlace(backend);
    expect(await migrate(place, 4)).toHaveLength(IDEMPOTENT_JOBS_MIGRATIONS.length);
    expect(await warned(place, 4)).toEqual([]);
    const { place: plain } = await partitioned(undefined);
    await expect(migrate(plain, 4)).rejects.toThrow(/one ordinary table, but 4 partitions/);
    const { place: same } = await partitioned(4);
    expect(await migrate(same, 4)).toHaveLength(IDEMPOTENT_JOBS_MIGRATIONS.length);
    expect(() => idempotentJobsMigrations({ partitions: 1 })).toThrow(ConfigurationError);
  });

  it('and ways to make them are named where the ledger is missing', async () => {
    const place = await makeEmptyPlace(backend);
    const boot = apps.beside(place, { queues: ['charges'], jobs: { migrations: 'check', partitions: 8 } });
    await expect(boot).rejects.toThrow(
      /migrate --partitions 8".*idempotentJobsMigrations\(\{ partitions: 8 \}\)/,
    );
  });

  it.each([undefined, 3])(
    'an existing ledger is moved into by the recipe of docs/scaling.md, from %s',
    async (before) => {
      const scripts = new Scripts();
      const processors = [
        processorOf('charges', { effect: 'natural', retry: RETRY }, scripts.handler),
        processorOf('moves', {}, scripts.handler),
      ];
      const queues = ['charges', 'moves', 'later'];
      const place = await makeEmptyPlace(backend);
      const old = await apps.beside(place, { queues, providers: processors, jobs: { partitions: before } });
      let isBroken = true;
      const tenant = scripts.tenantWith(async (_job, { step, operationKey }) => {
        if (operationKey === 'dead:1' && isBroken) throw new PermanentError('no');
        if (operationKey === 'doubtful:1') throw new Error('no answer');
        return step('done', () => operationKey);
      });
      await enqueue(old, 'charges', 'charge', {}, 'done:1', tenant);
      await enqueue(old, 'charges', 'charge', {}, 'dead:1', tenant);
      await enqueue(old, 'moves', 'move', {}, 'doubtful:1', tenant);
      for (const key of ['done:1', 'dead:1', 'doubtful:1']) await settled(old, key, tenant);
      await asTenant(old, tenant, () => old.get(IdempotencyService).once('call:1', () => 'called'));
      await apps.close(old);
      // A producer that was not stopped finds the new table by the statements that it has prepared for the old one.
      const producer = await apps.beside(place, { queues, jobs: { partitions: before } });
      for (const key of ['pending:1', 'running:1', 'retrying:1'])
        await enqueue(producer, 'charges', 'charge', {}, key, tenant);
      const session = await sessions.open(place);
      // A worker has vanished in one, and another is to be tried again.
      await session.query(`
        UPDATE job_outcomes SET status = split_part(operation_key, ':', 1), effect = 'natural', run_id = 'vanished',
          attempts = 1, fencing_token = 1, started_at = now(), repeatable_until = 'infinity',
          lease_expires_at = CASE operation_key WHEN 'running:1' THEN now() END,
          failures = CASE operation_key WHEN 'running:1' THEN 0 ELSE 1 END
        WHERE operation_key IN ('running:1', 'retrying:1')`);
      const all = async (): Promise<unknown[]> =>
        (
          await session.query(
            `SELECT to_jsonb(o) - 'dispatch_due_at' - 'dispatches' AS row FROM job_outcomes o ORDER BY tenant_id, operation_key`,
          )
        ).rows;
      const rows = await all();
      const { rows: statuses } = await session.query(
        'SELECT DISTINCT status FROM job_outcomes ORDER BY status',
      );
      expect(statuses.map(({ status }) => status)).toEqual([
        'completed',
        'dead',
        'in_doubt',
        'pending',
        'retrying',
        'running',
      ]);

      expect(await cliIn(place, 'migrate', '--schema', 'partitioned', '--partitions', '8')).toMatchObject({
        code: 0,
      });
      await session.query(recipe());

      expect(await all()).toEqual(rows);
      await cliIn(place, 'migrate', '--schema', 'fresh', '--partitions', '8');
      const indexes = async (schema: string): Promise<unknown[]> =>
        (
          await session.query(
            `SELECT tablename, indexname FROM pg_indexes WHERE schemaname = $1 AND tablename LIKE 'job_outcomes%' ORDER BY 1, 2`,
            [schema],
          )
        ).rows;
      expect(await indexes('public')).toEqual(await indexes('fresh'));
      await enqueue(producer, 'charges', 'charge', {}, 'new:1', tenant);
      expect(await enqueue(producer, 'charges', 'charge', {}, 'done:1', tenant)).toMatchObject({
        duplicate: true,
        result: 'done:1',
      });
      isBroken = false;
      const lines: string[] = [];
      const app = await apps.beside(place, {
        queues,
        providers: processors,
        jobs: { partitions: 8 },
        logger: warningsIn(lines),
      });
      for (const key of ['pending:1', 'running:1', 'retrying:1', 'new:1'])
        expect(await settled(app, key, tenant)).toMatchObject({ status: 'completed', result: key });
      const letter = (await lettersOf(app, tenant)).find(({ operation_key: key }) => key === 'dead:1');
      await app.get(DeadLetterService).redrive(letter?.id as string, BY);
      await eventually(
        () => outcomeOf(app, 'dead:1', tenant),
        (outcome) => expect(outcome).toMatchObject({ status: 'completed' }),
      );
      const doubtful = { tenantId: tenant, operationKey: 'doubtful:1' };
      await app.get(OutcomeService).resolve(doubtful, Reconciliation.applied('seen'), { source: 'bank' });
      expect(await outcomeOf(app, 'doubtful:1', tenant)).toMatchObject({
        status: 'completed',
        result: 'seen',
      });
      expect(lines.filter((line) => line.includes('partitions'))).toEqual([]);
    },
  );
});

/** The SQL of the documentation that moves a ledger into partitions. */
function recipe(): string {
  const text = readFileSync(new URL('../../docs/scaling.md', import.meta.url), 'utf8');
  const [, sql = ''] = /### Move a ledger into partitions[^]*?```sql\n([^]*?)```/.exec(text) ?? [];
  expect(sql).toContain('LOCK TABLE');
  return sql;
}

const CLAIM_OF_ONE = {
  queue: 'charges',
  origin: 'job',
  effect: 'natural',
  canReconcile: false,
  leaseMs: 30_000,
  repeatableMs: null,
  budgetMs: null,
  waitedForUntilMs: null,
  isKnown: true,
  tenantId: ['acme'],
  operationKey: ['charge:1'],
  jobName: ['charge'],
  jobId: ['op-1'],
  fingerprint: ['0'.repeat(64)],
  runId: ['run'],
  deadlineAt: null,
  availableMs: null,
  stepOf: null,
  step: null,
  trace: null,
  needsRow: [true],
  beganAt: null,
};

const RECORD_OF_ONE = {
  endedTenantId: ['acme'],
  endedKey: ['charge:2'],
  token: [7],
  result: ['1'],
  retentionMs: [1000],
  resultOmitted: null,
  degraded: null,
};

interface PlanNode {
  readonly 'Node Type': string;
  readonly 'Relation Name'?: string;
  readonly 'Actual Loops': number;
  readonly Plans?: readonly PlanNode[];
}

/** The tables of operations that a statement reads. */
async function readBy<Name extends string>(
  client: Client,
  statement: Statement<Name>,
  input: { readonly [Key in Name]: unknown },
): Promise<string[]> {
  const values = statement.with(input).values() as (string | number | boolean | null)[];
  const given = values.map((value) => (value === null ? 'NULL' : client.escapeLiteral(`${value}`)));
  await client.query(`PREPARE ${statement.name} AS ${statement.text.replaceAll('{schema}', 'public')}`);
  await client.query('BEGIN');
  const { rows } = await client.query<{ 'QUERY PLAN': [{ Plan: PlanNode }] }>(
    `EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE ${statement.name}(${given.join(', ')})`,
  );
  await client.query('ROLLBACK');
  const read = (node: PlanNode): string[] => [
    ...(node['Node Type'].includes('Scan') && node['Actual Loops'] > 0 ? [node['Relation Name'] ?? ''] : []),
    ...(node.Plans ?? []).flatMap(read),
  ];
  const tables = (rows[0] as (typeof rows)[0])['QUERY PLAN'].flatMap(({ Plan }) => read(Plan));
  return [...new Set(tables.filter((table) => table.startsWith('job_outcomes')))];
}
