import type { SchemaStep } from './migrations/schema-step.js';
import type { MigrationInterface, QueryRunner } from 'typeorm';
import { CREATE_LEDGER } from './migrations/1-ledger.js';
import { CREATE_WAY_BACK } from './migrations/2-way-back.js';
import { CREATE_QUEUES } from './migrations/3-queues.js';
import { CREATE_DOUBT } from './migrations/4-doubt.js';
import { CREATE_RESULTS } from './migrations/5-results.js';
import { CREATE_RETRIES } from './migrations/6-retries.js';
import { FIND_ENDED_JOBS } from './migrations/7-ended-jobs.js';
import { CREATE_STEPS } from './migrations/8-steps.js';

/** All steps, in order. Never edited once released; a change is a new step. */
export const SCHEMA_STEPS: readonly SchemaStep[] = [
  CREATE_LEDGER,
  CREATE_WAY_BACK,
  CREATE_QUEUES,
  CREATE_DOUBT,
  CREATE_RESULTS,
  CREATE_RETRIES,
  FIND_ENDED_JOBS,
  CREATE_STEPS,
];

/** The schema version this package was written for. */
export const SCHEMA_VERSION = SCHEMA_STEPS.length;

/** Remembers which steps a schema has taken, whoever ran them: the module itself or TypeORM's migrations. */
export const CREATE_VERSION_TABLE = `
CREATE TABLE IF NOT EXISTS {schema}.idempotent_jobs_schema (
  version    integer     PRIMARY KEY,
  name       text        NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
)`;

/** What is appended to the name of a step whose indexes are still to be built. */
export const UNFINISHED = ' (indexes to be built)';

/** Puts the schema's name into a step's SQL. */
export function inSchema(schema: string, sql: string): string {
  const quoted = `"${schema.replaceAll('"', '""')}"`;
  return sql.replaceAll('{schema}', () => quoted);
}

/** The lock under which steps are taken, so that instances that boot together take each once: the arguments of an advisory lock. */
export function migrationLock(schema: string): string {
  return `hashtextextended('nestjs-idempotent-jobs:' || ${literal(schema)}, 0)`;
}

/** How long a migration in somebody else's transaction waits for another one to end. */
const LOCK_PATIENCE = '30s';

/**
 * Takes the steps that a schema still lacks, in the caller's transaction. Another migration that does not end makes it fail
 * after 30 s.
 */
async function migrate(
  query: (sql: string) => Promise<unknown>,
  schema: string,
  upTo: number,
): Promise<void> {
  const ask = async <Row>(sql: string): Promise<Row[]> => (await query(inSchema(schema, sql))) as Row[];
  const [{ before } = { before: '0' }] = await ask<{ before: string }>(
    `SELECT current_setting('lock_timeout') AS before`,
  );
  await ask(`SELECT set_config('lock_timeout', '${LOCK_PATIENCE}', true)`);
  await ask(`SELECT pg_advisory_xact_lock(${migrationLock(schema)})`);
  await ask(`SELECT set_config('lock_timeout', ${literal(before)}, true)`);
  const [{ has_schema: hasSchema } = { has_schema: false }] = await ask<{ has_schema: boolean }>(
    `SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = ${literal(schema)}) AS has_schema`,
  );
  if (!hasSchema) await ask('CREATE SCHEMA IF NOT EXISTS {schema}');
  await ask(CREATE_VERSION_TABLE);
  const taken = await ask<{ version: number | bigint }>(
    'SELECT version FROM {schema}.idempotent_jobs_schema',
  );
  // The application may have told pg to read integers as BigInt.
  const versions = new Set(taken.map((row) => Number(row.version)));
  for (const step of SCHEMA_STEPS) {
    if (versions.has(step.version) || step.version > upTo) continue;
    if (step.before !== undefined) await ask(step.before);
    await ask(step.sql);
    for (const index of step.indexes ?? []) await ask(`CREATE ${index}`);
    await ask(recordOf(step, step.name));
  }
}

/** Notes that a step was taken. */
export function recordOf({ version }: SchemaStep, name: string): string {
  return `INSERT INTO {schema}.idempotent_jobs_schema (version, name) VALUES (${version}, ${literal(name)})`;
}

/**
 * For `new DataSource({ migrations: [...IDEMPOTENT_JOBS_MIGRATIONS] })`: the ledger's schema as TypeORM migrations, in
 * the DataSource's own schema. Use these, or `forRoot({ migrations: 'run' })`; both know what the other has done.
 *
 * TypeORM runs them in its transaction, so that indexes are built under a lock that keeps writers waiting; on a ledger that
 * is large and in use, `migrations: 'run'` and the command line build them beside the traffic.
 */
export const IDEMPOTENT_JOBS_MIGRATIONS: readonly (new () => MigrationInterface)[] = [
  migrationTo('IdempotentJobsLedger1767225600000', 1),
  migrationTo('IdempotentJobsWayBack1795305600000', 2),
  migrationTo('IdempotentJobsQueues1795305600001', 3),
  migrationTo('IdempotentJobsDoubt1795305600002', 4),
  migrationTo('IdempotentJobsResults1795305600003', 5),
  migrationTo('IdempotentJobsRetries1795305600004', 6),
  migrationTo('IdempotentJobsEndedJobs1795305600005', 7),
  migrationTo('IdempotentJobsSteps1795651200000', 8),
];

/** TypeORM remembers migrations by name, and runs those it does not know: each step of the schema is one. */
function migrationTo(name: string, version: number): new () => MigrationInterface {
  return class implements MigrationInterface {
    readonly name = name;

    async up(runner: QueryRunner): Promise<void> {
      await migrate((sql) => runner.query(sql), schemaOf(runner.dataSource.options), version);
    }

    down(): Promise<void> {
      throw new Error(
        'The ledger is never migrated down: it holds the only record of which effects happened. Restore a backup, or drop its tables by hand.',
      );
    }
  };
}

/** The schema that a DataSource's tables are in. */
export function schemaOf(options: object): string {
  return (options as { schema?: string }).schema ?? 'public';
}

/** Text as an SQL literal. */
export function literal(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}
