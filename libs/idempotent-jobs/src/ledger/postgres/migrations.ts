import type { MigrationInterface, QueryRunner } from 'typeorm';
import { dataSourceOf } from './query-runner.js';
import { ConfigurationError } from '../../operation/errors.js';
import { optionChecks } from '../../option-checks/option-checks.js';
import { partitionsAmiss, readPartitions } from './partitions.js';
import { BUNDLES, ledgerTables } from './schema.js';
import { type Ask, inSchema, literal } from './sql.js';

/** One forward step of the ledger's schema. `{schema}` stands for the quoted schema. */
export interface SchemaStep {
  readonly version: number;
  readonly name: string;
  /** SQL that {@link batch} needs. May be run again. */
  readonly before?: string;
  /**
   * Changes some thousands of rows, and returns one row for each. It is run until it returns none, each time in a
   * transaction of its own, so that no other transaction waits for more than a batch. `sql` changes the rows that it
   * leaves over.
   */
  readonly batch?: string;
  readonly sql: string;
  /**
   * Indexes on tables that may be full; each entry is what follows `CREATE`. Built afterwards, without blocking the table,
   * unless the step is part of a larger transaction.
   */
  readonly indexes?: readonly `INDEX ${string}`[];
  /** How many partitions it gives `job_outcomes`. Only the first step can. */
  readonly partitions?: number | undefined;
}

/**
 * All steps, in order. Never edited once released; a change is a new step.
 *
 * @param partitions how many partitions `job_outcomes` gets in a new ledger. Undefined makes one ordinary table
 */
export function schemaSteps(partitions?: number): readonly SchemaStep[] {
  return [
    { version: 1, name: 'first-release', sql: ledgerTables(partitions), partitions },
    { version: 2, name: 'bundles', sql: BUNDLES },
  ];
}

/** The steps of a ledger without partitions. */
export const SCHEMA_STEPS = schemaSteps();

/** The schema version this package was written for. */
export const SCHEMA_VERSION = SCHEMA_STEPS.length;

/** Records which steps a schema has taken, by the module itself or by TypeORM's migrations. */
const CREATE_VERSION_TABLE = `
CREATE TABLE IF NOT EXISTS {schema}.idempotent_jobs_schema (
  version    integer     PRIMARY KEY,
  name       text        NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
)`;

/** Appended to the name of a step whose indexes are still to be built. */
export const UNFINISHED = ' (indexes to be built)';

/** The arguments of the advisory lock that lets instances which boot together take each step once. */
export function migrationLock(schema: string): string {
  return `hashtextextended('nestjs-idempotent-jobs:' || ${literal(schema)}, 0)`;
}

/**
 * How long a step waits for a table's lock: the statements of all others queue up behind it meanwhile. With retries, the
 * step gets in between two transactions sooner or later.
 */
export const TABLE_LOCK_MS = 300;

/** How long a step may take once it has its locks; most are over in milliseconds. */
export const STEP_MS = 10 * 60_000;

/** How long a migration in the caller's transaction waits for another one to end. */
const LOCK_PATIENCE = '30s';

/**
 * Takes a missing step in the caller's transaction. Fails when another migration does not end within 30 s, and when the
 * step should have made other partitions than there are.
 */
async function take(
  step: SchemaStep,
  query: (sql: string) => Promise<unknown>,
  schema: string,
): Promise<void> {
  const ask: Ask = async <Row>(sql: string) => (await query(inSchema(schema, sql))) as Row[];
  const [{ before } = { before: '0' }] = await ask<{ before: string }>(
    `SELECT current_setting('lock_timeout') AS before`,
  );
  await ask(`SELECT set_config('lock_timeout', '${LOCK_PATIENCE}', true)`);
  await ask(`SELECT pg_advisory_xact_lock(${migrationLock(schema)})`);
  await ask(`SELECT set_config('lock_timeout', ${literal(before)}, true)`);
  await prepareSchema(ask, schema);
  if (await isTaken(ask, step)) {
    const amiss = await partitionsAmiss(ask, schema, step.partitions);
    if (amiss !== undefined) throw new ConfigurationError(amiss);
    return;
  }
  if (step.before !== undefined) await ask(step.before);
  await ask(step.sql);
  for (const index of step.indexes ?? []) await ask(`CREATE ${index}`);
  await ask(recordOf(step, step.name));
}

/** Creates the schema and the table of its steps, as far as they are missing, because creating needs a privilege. */
export async function prepareSchema(ask: Ask, schema: string): Promise<void> {
  const [found] = await ask<{ has_schema: boolean; has_table: boolean }>(
    `SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = ${literal(schema)}) AS has_schema,
            to_regclass(${literal(inSchema(schema, '{schema}.idempotent_jobs_schema'))}) IS NOT NULL AS has_table`,
  );
  if (found?.has_schema !== true) await ask('CREATE SCHEMA IF NOT EXISTS {schema}');
  if (found?.has_table !== true) await ask(CREATE_VERSION_TABLE);
}

/** Whether a step is recorded as taken. */
export async function isTaken(ask: Ask, { version }: SchemaStep): Promise<boolean> {
  return (await ask(`SELECT FROM {schema}.idempotent_jobs_schema WHERE version = ${version}`)).length > 0;
}

/** SQL that records a step as taken. */
export function recordOf({ version }: SchemaStep, name: string): string {
  return `INSERT INTO {schema}.idempotent_jobs_schema (version, name) VALUES (${version}, ${literal(name)})`;
}

/**
 * The ledger's schema as TypeORM migrations, with `job_outcomes` in so many partitions by tenant. Without a number it is
 * one ordinary table, as with {@link IDEMPOTENT_JOBS_MIGRATIONS}. The number counts only where the ledger is first made.
 *
 * @throws ConfigurationError for another number than a whole one from 2 to 64
 */
export function idempotentJobsMigrations({
  partitions,
}: { readonly partitions?: number } = {}): readonly (new () => MigrationInterface)[] {
  const checks = optionChecks('idempotentJobsMigrations()');
  const steps = schemaSteps(readPartitions(checks, partitions));
  checks.throwIfAny((message) => new ConfigurationError(message));
  return steps.map((step, index) => migrationOf(MIGRATION_NAMES[index] as string, step));
}

/** The names by which TypeORM remembers the steps. */
const MIGRATION_NAMES = ['IdempotentJobsLedger1767225600000', 'IdempotentJobsBundles1795651200000'];

/**
 * For `new DataSource({ migrations: [...IDEMPOTENT_JOBS_MIGRATIONS] })`: the ledger's schema as TypeORM migrations, in the
 * DataSource's own schema. Use these or `forRoot({ migrations: 'run' })`; each knows what the other has done.
 *
 * TypeORM runs them in its transaction, so that indexes are built under a lock that blocks writers. On a large ledger that
 * is in use, `migrations: 'run'` and the command line build them without blocking writers.
 */
export const IDEMPOTENT_JOBS_MIGRATIONS = idempotentJobsMigrations();

/** One step as a TypeORM migration. TypeORM remembers migrations by name, and runs those that it does not know. */
export function migrationOf(name: string, step: SchemaStep): new () => MigrationInterface {
  return class implements MigrationInterface {
    readonly name = name;

    async up(runner: QueryRunner): Promise<void> {
      await take(step, (sql) => runner.query(sql), schemaOf(dataSourceOf(runner).options));
    }

    /** Does nothing, so that migrations of the application that come before it can be reverted. */
    async down(runner: QueryRunner): Promise<void> {
      dataSourceOf(runner).logger.logMigration(
        `${name} leaves the ledger as it is, and is only taken off TypeORM's list: the ledger alone knows which effects have happened. To remove it, drop its tables by hand.`,
        runner,
      );
    }
  };
}

/** The schema that a DataSource's tables are in. */
export function schemaOf(options: object): string {
  return (options as { schema?: string }).schema ?? 'public';
}
