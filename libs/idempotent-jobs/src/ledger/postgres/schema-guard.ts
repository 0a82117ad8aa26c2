import { ConfigurationError, PROGRAM } from '../../operation/errors.js';
import { buildIndex } from './build-index.js';
import type { Database } from './database.js';
import {
  SCHEMA_STEPS,
  type SchemaStep,
  UNFINISHED,
  isTaken,
  prepareSchema,
  migrationLock,
  recordOf,
  STEP_MS,
  TABLE_LOCK_MS,
} from './migrations.js';
import { partitionsAmiss } from './partitions.js';
import { type Ask, inSchema, literal } from './sql.js';
import { setTimeout as pause } from 'node:timers/promises';
import { LOCK_NOT_AVAILABLE, sqlStateOf } from './no-connection.js';

/**
 * Checks that the ledger's schema is the one that this package was written for.
 *
 * @param mode `run` takes the missing steps, `check` only looks
 * @param meanwhile gets the promise of the index builds, which may take minutes; without it, they are awaited
 * @param steps those of a new ledger, which may have partitions; for tests, the steps of a later version
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
  const [partitions, migrations] = waysTo(version === undefined ? steps[0]?.partitions : undefined);
  throw new ConfigurationError(
    `${version === undefined ? `Schema "${schema}" has no ledger` : `The ledger in schema "${schema}" is at version ${version}, but this package needs ${steps.length}`}. ` +
      `Run "${PROGRAM} migrate${partitions}", set forRoot({ migrations: 'run' }), or add ...${migrations} to the DataSource's migrations and run them before the application starts.`,
  );
}

/** What makes a ledger with so many partitions: an option of the command line, and TypeORM's migrations. */
function waysTo(partitions: number | undefined): readonly [string, string] {
  return partitions === undefined
    ? ['', 'IDEMPOTENT_JOBS_MIGRATIONS']
    : [` --partitions ${partitions}`, `idempotentJobsMigrations({ partitions: ${partitions} })`];
}

/** Says that the ledger has not the partitions that were asked for: see {@link partitionsAmiss}. */
export function comparePartitions(
  database: Database,
  asked: number | undefined,
): Promise<string | undefined> {
  const { schema } = database;
  const on = database.inLane('other');
  const ask: Ask = async <Row>(sql: string) =>
    (await on.query({ text: inSchema(schema, sql) })).rows as Row[];
  return partitionsAmiss(ask, schema, asked);
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

/** How long a step is retried while another transaction holds a lock that it needs. */
const PATIENCE_MS = 30_000;
const PAUSE_MS = 250;

/** How soon to look again whether another instance has built the indexes, or the table is free; each time twice as long. */
const BUILDER_PAUSE_MS = 1_000;
const MAX_BUILDER_PAUSE_MS = 30_000;

/**
 * Takes the steps that the ledger's schema lacks while applications go on using it. Each step runs in short transactions
 * of its own, which give up a lock that they do not get at once. The indexes follow after all steps, without blocking
 * writers.
 *
 * Any number of instances may upgrade at one time: an advisory lock, held for one step, puts them in order. When an
 * instance is killed, at whatever point, the next one continues.
 */
class SchemaUpgrade {
  constructor(private readonly database: Database) {}

  /**
   * @param isNew whether there is no ledger yet, so that no transaction uses its tables
   * @throws ConfigurationError if another transaction holds a needed lock for longer than 30 s
   */
  async run(steps: readonly SchemaStep[], isNew: boolean): Promise<void> {
    for (const step of steps) await this.#withRetry(step, (ask) => this.#take(ask, step, isNew));
  }

  /**
   * Builds the indexes of steps that were taken, or waits until another instance has. It may take minutes, because
   * Postgres waits for all older transactions, and one instance builds all indexes. Only speed depends on them. Stops when
   * the library's connections end.
   */
  async buildIndexes(steps: readonly SchemaStep[]): Promise<void> {
    const { closing } = this.database;
    let pauseMs = BUILDER_PAUSE_MS;
    for (const step of steps)
      while ((await this.#try((ask) => this.#index(ask, step))) !== undefined) {
        await pause(pauseMs, undefined, { signal: closing });
        // Whoever wants the table queues up behind each try.
        pauseMs = Math.min(2 * pauseMs, MAX_BUILDER_PAUSE_MS);
      }
  }

  async #withRetry(step: SchemaStep, work: Work): Promise<void> {
    const giveUpAt = performance.now() + PATIENCE_MS;
    for (;;) {
      const held = await this.#try(work);
      if (held === undefined) return;
      if (performance.now() >= giveUpAt) throw this.#blocked(step, held);
      await pause(PAUSE_MS);
    }
  }

  /** Tries once. Returns what stood in the way; undefined means that the work is done. */
  async #try(work: Work): Promise<string | undefined> {
    const { closing } = this.database;
    closing.throwIfAborted();
    const connection = await this.database.connect('other');
    let broken: Error | undefined;
    let isReleased = false;
    const release = (error: Error): void => {
      if (!isReleased) connection.release(error);
      isReleased = true;
    };
    const hangUp = (): void => release(new Error('The application is shutting down'));
    closing.addEventListener('abort', hangUp, { once: true });
    const ask: Ask = async (sql, timeoutMs) => {
      const text = inSchema(this.database.schema, sql);
      return (await connection.query({ text, ...(timeoutMs !== undefined && { timeoutMs }) })).rows;
    };
    try {
      if ((await work(ask)) === 'done') return undefined;
      return `Another session holds the advisory lock under which the schema is upgraded${await this.#holder(ask)}`;
    } catch (error) {
      broken = error as Error;
      if (sqlStateOf(error) !== LOCK_NOT_AVAILABLE) throw error;
      return 'Other transactions hold locks on its tables';
    } finally {
      closing.removeEventListener('abort', hangUp);
      // Closed: it carries settings, and perhaps a lock, that no other user of the pool may find.
      release(broken ?? new Error('The upgrade is over'));
    }
  }

  async #take(ask: Ask, step: SchemaStep, isNew: boolean): Promise<'done' | 'busy'> {
    const { name, before, batch, sql, indexes = [] } = step;
    // A step that changes most rows of a large table must read them in their physical order.
    await ask('SET enable_seqscan = on');
    if (!isNew && (await isTaken(ask, step))) return 'done';
    if (!isNew && before !== undefined) {
      const isBusy = (await this.#underLock(ask, () => ask(before))) === 'busy';
      if (isBusy) return 'busy';
    }
    if (!isNew && batch !== undefined) while ((await ask(batch)).length > 0);
    return this.#underLock(ask, async () => {
      await prepareSchema(ask, this.database.schema);
      if (await isTaken(ask, step)) return;
      if (isNew && before !== undefined) await ask(before);
      await ask(sql, STEP_MS);
      if (isNew) for (const index of indexes) await ask(`CREATE ${index}`);
      await ask(recordOf(step, isNew || indexes.length === 0 ? name : name + UNFINISHED));
    });
  }

  /** Does `work` in a transaction, unless another instance is upgrading at this moment. */
  async #underLock(ask: Ask, work: () => Promise<unknown>): Promise<'done' | 'busy'> {
    await ask(`BEGIN; SET LOCAL lock_timeout = ${TABLE_LOCK_MS}; SET LOCAL statement_timeout = ${STEP_MS}`);
    if (!(await this.#locks(ask, 'pg_try_advisory_xact_lock'))) {
      await ask('ROLLBACK');
      return 'busy';
    }
    await work();
    await ask('COMMIT');
    return 'done';
  }

  /** Takes the advisory lock. False when another instance has it. */
  async #locks(ask: Ask, how: 'pg_try_advisory_lock' | 'pg_try_advisory_xact_lock'): Promise<boolean> {
    const [lock] = await ask<{ is_mine: boolean }>(
      `SELECT ${how}(${migrationLock(this.database.schema)}) AS is_mine`,
    );
    return lock?.is_mine === true;
  }

  async #index(ask: Ask, step: SchemaStep): Promise<'done' | 'busy'> {
    const { indexes = [] } = step;
    if (indexes.length === 0) return 'done';
    const unfinished = `version = ${step.version} AND name = ${literal(step.name + UNFINISHED)}`;
    const isUnfinished = async (): Promise<boolean> =>
      (await ask(`SELECT FROM {schema}.idempotent_jobs_schema WHERE ${unfinished}`)).length > 0;
    if (!(await isUnfinished())) return 'done';
    await ask(`SET statement_timeout = ${STEP_MS}`);
    if (!(await this.#locks(ask, 'pg_try_advisory_lock'))) return 'busy';
    if (!(await isUnfinished())) return 'done';
    for (const index of indexes) await buildIndex(ask, this.database.schema, index);
    await ask(`UPDATE {schema}.idempotent_jobs_schema SET name = ${literal(step.name)} WHERE ${unfinished}`);
    return 'done';
  }

  /** Names the holder of the advisory lock, as far as the role may see it. */
  async #holder(ask: Ask): Promise<string> {
    const [holder] = await ask<{ pid: number }>(
      `SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
         AND (classid::bigint << 32 | objid::bigint) = ${migrationLock(this.database.schema)} LIMIT 1`,
    );
    return holder === undefined ? '' : ` (process ${holder.pid}, see pg_stat_activity)`;
  }

  #blocked({ version, name }: SchemaStep, held: string): ConfigurationError {
    return new ConfigurationError(
      `The ledger in schema "${this.database.schema}" could not take step ${version} (${name}) within ${PATIENCE_MS / 1000} s. ${held}. Nothing was changed by it; start again, or upgrade when fewer long transactions run.`,
    );
  }
}

type Work = (ask: Ask) => Promise<'done' | 'busy'>;
