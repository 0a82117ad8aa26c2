import type { DataSource } from 'typeorm';
import { ConfigurationError } from '../operation/errors.js';
import { PROGRAM } from '../operation/program.js';
import { migrate, SCHEMA_STEPS, SCHEMA_VERSION, type SchemaStep } from './migrations.js';

/**
 * Makes sure, once at boot, that the ledger's schema is the one this package was written for.
 *
 * @param mode `run` takes the missing steps, `check` only looks
 * @throws ConfigurationError if the schema is missing, older (`check`) or newer than this package
 */
export async function ensureSchema(
  dataSource: DataSource,
  schema: string,
  mode: 'run' | 'check',
): Promise<void> {
  if (mode === 'run') {
    await refuseNewer(dataSource, schema);
    await dataSource.transaction((manager) => migrate((sql) => manager.query(sql), schema));
    return;
  }
  const version = await refuseNewer(dataSource, schema);
  if (version === SCHEMA_VERSION) return;
  throw new ConfigurationError(
    `${version === undefined ? `Schema "${schema}" has no ledger` : `The ledger in schema "${schema}" is at version ${version}, but this package needs ${SCHEMA_VERSION}`}. ` +
      `Run "${PROGRAM} migrate", set forRoot({ migrations: 'run' }), or add ...IDEMPOTENT_JOBS_MIGRATIONS to the DataSource's migrations and run them before the application starts.`,
  );
}

async function refuseNewer(dataSource: DataSource, schema: string): Promise<number | undefined> {
  const version = await schemaVersion(dataSource, schema);
  if (version === undefined || version <= SCHEMA_VERSION) return version;
  throw new ConfigurationError(
    `The ledger in schema "${schema}" is at version ${version}, but this package knows only up to ${SCHEMA_VERSION}. A newer nestjs-idempotent-jobs has migrated it; deploy that version here too.`,
  );
}

/** The version a schema is at; undefined if it has no ledger. */
export async function schemaVersion(dataSource: DataSource, schema: string): Promise<number | undefined> {
  const table = `"${schema.replaceAll('"', '""')}".idempotent_jobs_schema`;
  const [found] = await dataSource.query<[{ present: boolean }]>(
    'SELECT to_regclass($1) IS NOT NULL AS present',
    [table],
  );
  if (!found.present) return undefined;
  const [latest] = await dataSource.query<[{ version: number | null }]>(
    `SELECT max(version) AS version FROM ${table}`,
  );
  return latest.version ?? undefined;
}

/**
 * The steps that a schema still lacks; all of them where there is no ledger.
 *
 * @throws ConfigurationError if the schema is newer than this package
 */
export async function pendingSteps(dataSource: DataSource, schema: string): Promise<readonly SchemaStep[]> {
  const version = (await refuseNewer(dataSource, schema)) ?? 0;
  return SCHEMA_STEPS.filter((step) => step.version > version);
}
