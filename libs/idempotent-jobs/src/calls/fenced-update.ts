import { currentOperation } from '../worker/attempt/current-operation.js';
import { UsageError } from '../operation/errors.js';
import { quoted } from '../ledger/postgres/sql.js';

/** Runs a statement: TypeORM's EntityManager, DataSource and QueryRunner, and the clients and pools of `pg`. */
export interface FenceExecutor {
  query(text: string, values: unknown[]): Promise<unknown>;
}

/** A write to one row of an application's table that an outdated worker must not win. */
export interface FencedUpdate {
  /** The table's name: `accounts`, or with its schema `billing.accounts`. */
  readonly table: string;
  /** The row: columns and values, all of which must be equal. Not empty, no nulls. */
  readonly key: Readonly<Record<string, unknown>>;
  /** What to write: columns and values. */
  readonly set: Readonly<Record<string, unknown>>;
  /** The column that keeps the highest token, a nullable `bigint`. Default `fence`. */
  readonly fenceColumn?: string;
  /** The fencing token. Default: that of the current operation. */
  readonly token?: number;
}

/**
 * Writes a row unless a later claim has written it: `UPDATE … WHERE fence <= token`, with the token noted in the row. A
 * worker that was paused beyond its lease, and comes back while another worker has gone on, changes nothing.
 *
 * Tokens grow by the clock of the ledger's database with every claim, even after a key was forgotten and used anew. A
 * row should be written by one kind of operation: between two that run at the same time, the later claim wins.
 *
 * @returns `written`; `outdated` if a later claim has written the row: nothing was changed, and the caller must stop;
 *   `missing` if there is no such row
 * @throws UsageError for an empty key, nulls in it, outside of an operation without a token, or in an attempt without a claim
 */
export async function fencedUpdate(
  on: FenceExecutor,
  { table, key, set, fenceColumn = 'fence', token = currentOperation().fencingToken }: FencedUpdate,
): Promise<'written' | 'outdated' | 'missing'> {
  if (!Number.isSafeInteger(token))
    throw new UsageError(`fencedUpdate(): the token is ${token}, not a fencing token.`);
  if (token === 0)
    throw new UsageError(
      "fencedUpdate() needs a claim, which first attempts of a processor with `optimistic` do not have. Leave `optimistic` out, or write in a step and give the step's own token.",
    );
  const columns = Object.keys(key);
  const isNamed =
    columns.length > 0 && Object.values(key).every((value) => value !== null && value !== undefined);
  if (!isNamed)
    throw new UsageError(
      `fencedUpdate("${table}") needs a key that names one row: columns with values, none of them null.`,
    );
  const values: unknown[] = [token];
  const place = (value: unknown): string => `$${values.push(value)}`;
  const where = columns.map((column) => `${quoted(column)} = ${place(key[column])}`).join(' AND ');
  const changes = Object.keys(set).map((column) => `${quoted(column)} = ${place(set[column])}`);
  const row = table.split('.').map(quoted).join('.');
  const fence = quoted(fenceColumn);
  const answer = await on.query(
    `WITH written AS (
      UPDATE ${row} SET ${[...changes, `${fence} = $1`].join(', ')}
      WHERE ${where} AND COALESCE(${fence}, 0) <= $1
      RETURNING true
    )
    SELECT EXISTS (SELECT FROM written) AS is_written, EXISTS (SELECT FROM ${row} WHERE ${where}) AS is_known`,
    values,
  );
  // pg returns an object that contains the rows, TypeORM the rows themselves.
  const rows = (Array.isArray(answer) ? answer : (answer as { rows: unknown[] }).rows) as {
    is_written: boolean;
    is_known: boolean;
  }[];
  if (rows[0]?.is_written === true) return 'written';
  return rows[0]?.is_known === true ? 'outdated' : 'missing';
}
