import type { MigrationInterface, QueryRunner } from 'typeorm';
import { CREATE_LEDGER } from './migrations/1-ledger.js';
import { CREATE_WAY_BACK } from './migrations/2-way-back.js';
import { CREATE_QUEUES } from './migrations/3-queues.js';
import { CREATE_DOUBT } from './migrations/4-doubt.js';
import { CREATE_RESULTS } from './migrations/5-results.js';
import { CREATE_RETRIES } from './migrations/6-retries.js';
import { FIND_ENDED_JOBS } from './migrations/7-ended-jobs.js';

/** One forward step of the ledger's schema. `{schema}` stands for the quoted schema. */
export interface SchemaStep {
  readonly version: number;
  readonly name: string;
  readonly sql: string;
}

/** All steps, in order. Never edited once released; a change is a new step. */
export const SCHEMA_STEPS: readonly SchemaStep[] = [
  CREATE_LEDGER,
  CREATE_WAY_BACK,
  CREATE_QUEUES,
  CREATE_DOUBT,
  CREATE_RESULTS,
  CREATE_RETRIES,
  FIND_ENDED_JOBS,
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

/**
 * Takes the steps that a schema still lacks. Runs in the caller's transaction, under an advisory lock, so that
 * instances that boot together take each step once.
 */
export async function migrate(
  query: (sql: string) => Promise<unknown>,
  schema: string,
  upTo = SCHEMA_VERSION,
): Promise<void> {
  const quoted = `"${schema.replaceAll('"', '""')}"`;
  const inSchema = (sql: string): string => sql.replaceAll('{schema}', () => quoted);
  await query(
    `SELECT pg_advisory_xact_lock(hashtextextended('nestjs-idempotent-jobs:' || ${literal(schema)}, 0))`,
  );
  await query(inSchema('CREATE SCHEMA IF NOT EXISTS {schema}'));
  await query(inSchema(CREATE_VERSION_TABLE));
  const taken = (await query(inSchema('SELECT version FROM {schema}.idempotent_jobs_schema'))) as {
    version: number;
  }[];
  const versions = new Set(taken.map((row) => row.version));
  for (const step of SCHEMA_STEPS) {
    if (versions.has(step.version) || step.version > upTo) continue;
    await query(inSchema(step.sql));
    await query(
      inSchema(
        `INSERT INTO {schema}.idempotent_jobs_schema (version, name) VALUES (${step.version}, ${literal(step.name)})`,
      ),
    );
  }
}

/**
 * For `new DataSource({ migrations: [...IDEMPOTENT_JOBS_MIGRATIONS] })`: the ledger's schema as TypeORM migrations, in
 * the DataSource's own schema. Use these, or `forRoot({ migrations: 'run' })`; both know what the other has done.
 */
export const IDEMPOTENT_JOBS_MIGRATIONS: readonly (new () => MigrationInterface)[] = [
  migrationTo('IdempotentJobsLedger1767225600000', 1),
  migrationTo('IdempotentJobsWayBack1795305600000', 2),
  migrationTo('IdempotentJobsQueues1795305600001', 3),
  migrationTo('IdempotentJobsDoubt1795305600002', 4),
  migrationTo('IdempotentJobsResults1795305600003', 5),
  migrationTo('IdempotentJobsRetries1795305600004', 6),
  migrationTo('IdempotentJobsEndedJobs1795305600005', 7),
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

function literal(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}
