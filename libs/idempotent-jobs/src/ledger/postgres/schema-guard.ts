import { ConfigurationError, PROGRAM } from '../../operation/errors.js';
import type { Database } from './database.js';
import { inSchema, SCHEMA_STEPS, type SchemaStep, UNFINISHED } from './migrations.js';
import { SchemaUpgrade } from './schema-upgrade.js';

/**
 * Checks that the ledger's schema is the one that this package was written for.
 *
 * @param mode `run` takes the missing steps, `check` only looks
 * @param meanwhile gets the promise of the index builds, which may take minutes; without it, they are awaited
 * @param steps for tests: the steps of a later version
 * @throws ConfigurationError if the schema is missing, older (`check`) or newer than this package, or cannot be upgraded
 *   because another transaction holds its locks
 */
export async function ensureSchema(
  database: Database,
  mode: 'run' | 'check',
  meanwhile?: (building: Promise<void>) => void,
  steps = SCHEMA_STEPS,
): Promise<void> {
  const { schema } = database;
  const state = await refuseNewer(database, steps);
  const { version } = state;
  // Without missing steps, nothing is locked and no privilege is needed.
  if (mode === 'run') {
    const upgrade = new SchemaUpgrade(database);
    const missing = missingIn(state, steps);
    await upgrade.run(missing, version === undefined);
    if (version === undefined) return;
    const building = upgrade.buildIndexes(missing);
    return meanwhile === undefined ? building : meanwhile(building);
  }
  if (version === steps.length) return;
  throw new ConfigurationError(
    `${version === undefined ? `Schema "${schema}" has no ledger` : `The ledger in schema "${schema}" is at version ${version}, but this package needs ${steps.length}`}. ` +
      `Run "${PROGRAM} migrate", set forRoot({ migrations: 'run' }), or add ...IDEMPOTENT_JOBS_MIGRATIONS to the DataSource's migrations and run them before the application starts.`,
  );
}

/** The state of a schema. */
interface SchemaState {
  /** Undefined when it has no ledger. */
  readonly version: number | undefined;
  /** The name of its first step. Undefined when it has no ledger. */
  readonly origin: string | undefined;
  /** Steps whose indexes are still to be built. */
  readonly unfinished: readonly number[];
}

async function refuseNewer(database: Database, steps = SCHEMA_STEPS): Promise<SchemaState> {
  const state = await stateOf(database);
  const [first] = steps;
  if (state.version !== undefined && state.origin !== first?.name)
    throw new ConfigurationError(
      `The ledger in schema "${database.schema}" was made by a development version from before the first release, and cannot be upgraded. Give this version another schema, or let the queues run empty, drop the ledger's tables, and start again.`,
    );
  if (state.version === undefined || state.version <= steps.length) return state;
  throw new ConfigurationError(
    `The ledger in schema "${database.schema}" is at version ${state.version}, but this package knows only up to ${steps.length}. A newer nestjs-idempotent-jobs has migrated it; deploy that version here too.`,
  );
}

async function stateOf(database: Database): Promise<SchemaState> {
  const on = database.inLane('other');
  const table = inSchema(database.schema, '{schema}.idempotent_jobs_schema');
  const found = await on.query({ text: 'SELECT to_regclass($1) IS NOT NULL AS present', values: [table] });
  if (!(found.rows[0] as { present: boolean }).present)
    return { version: undefined, origin: undefined, unfinished: [] };
  const { rows } = await on.query({ text: `SELECT version, name FROM ${table} ORDER BY version` });
  const steps = rows as { version: number; name: string }[];
  return {
    version: steps.at(-1)?.version,
    origin: steps.at(0)?.name.replace(UNFINISHED, ''),
    unfinished: steps.filter(({ name }) => name.endsWith(UNFINISHED)).map(({ version }) => version),
  };
}

/** The version of a schema. Undefined when it has no ledger. */
export async function schemaVersion(database: Database): Promise<number | undefined> {
  return (await stateOf(database)).version;
}

/**
 * The steps that a schema still lacks. Without a ledger, these are all steps.
 *
 * @throws ConfigurationError if the schema is newer than this package
 */
export async function pendingSteps(database: Database): Promise<readonly SchemaStep[]> {
  return missingIn(await refuseNewer(database));
}

function missingIn({ version = 0, unfinished }: SchemaState, steps = SCHEMA_STEPS): readonly SchemaStep[] {
  return steps.filter((step) => step.version > version || unfinished.includes(step.version));
}
