import { MAX_OPERATION_KEY_LENGTH } from '../../operation/identity.js';
import type { Lane } from './lanes.js';

/**
 * One SQL statement of the library, named by the transition it makes. The name becomes that of a prepared statement, so
 * that Postgres plans it once per connection. `{schema}` in the text stands for the quoted schema of the ledger.
 */
export class Statement<Name extends string = string> {
  /** With `$1`, `$2` … for the parameters. */
  readonly text: string;
  readonly #names: readonly string[];

  /** @param lane how urgent the statement is when it is run by itself */
  constructor(
    readonly name: string,
    text: string,
    readonly lane: Lane,
  ) {
    const names: string[] = [];
    this.text = text.trim().replaceAll(PARAMETER, (_all, parameter: string) => {
      if (!names.includes(parameter)) names.push(parameter);
      return `$${names.indexOf(parameter) + 1}`;
    });
    this.#names = names;
  }

  /**
   * The statement with its parameters: exactly those that its text names. Undefined becomes NULL. A function is called
   * once there is a connection.
   */
  with(input: Input<Name> | (() => Input<Name>)): Call {
    return { statement: this, values: () => this.#valuesOf(typeof input === 'function' ? input() : input) };
  }

  #valuesOf(input: Readonly<Record<string, unknown>>): unknown[] {
    const values: unknown[] = [];
    for (const name of this.#names) {
      if (!(name in input)) throw new Error(`Statement "${this.name}" has no value for :${name}`);
      const value = input[name];
      values.push(Array.isArray(value) ? arrayText(value) : value);
    }
    return values;
  }
}

/**
 * An array as Postgres reads it. pg would look through every element with two regular expressions; most elements need
 * neither, and numbers, booleans and NULL need no quotes.
 */
function arrayText(values: readonly unknown[]): string {
  let text = '{';
  for (let index = 0; index < values.length; index += 1) {
    if (index > 0) text += ',';
    text += elementText(values[index]);
  }
  return `${text}}`;
}

function elementText(value: unknown): string {
  if (value === null || value === undefined) return 'NULL';
  if (typeof value === 'number' || typeof value === 'boolean') return String(value);
  const text = value instanceof Date ? value.toISOString() : (value as string);
  return text.includes('\\') || text.includes('"')
    ? `"${text.replaceAll('\\', '\\\\').replaceAll('"', '\\"')}"`
    : `"${text}"`;
}

/** A statement with its parameters, to be run. */
export interface Call {
  readonly statement: Statement;
  /** In the order in which the text names them. */
  readonly values: () => unknown[];
}

/** Runs a statement in whatever transaction the caller has open. */
export type RunStatement = <Row>(call: Call) => Promise<Row[]>;

/** `:name` stands for a parameter; `::type` is a cast. */
const PARAMETER = /(?<!:):([a-zA-Z]\w*)/g;

/** Declares a {@link Statement}. Its parameters are the `:names` in the text, which the compiler extracts. */
export function statement<const Text extends string>(
  name: string,
  text: Text,
  lane: Lane = 'other',
): Statement<NameIn<Text>> {
  return new Statement(name, text, lane);
}

type Input<Name extends string> = { readonly [Key in Name]: unknown };

type NameIn<Text extends string, Found extends string = never> = Text extends `${string}:${infer Rest}`
  ? Rest extends `:${infer Type}`
    ? NameIn<Type, Found>
    : NameIn<Rest, Found | WordAtStart<Rest>>
  : Exclude<Found, ''>;

type WordAtStart<Text extends string, Word extends string = ''> = Text extends `${infer First}${infer Rest}`
  ? Lowercase<First> extends WordCharacter
    ? WordAtStart<Rest, `${Word}${First}`>
    : Word
  : Word;

// prettier-ignore
type WordCharacter = 'a' | 'b' | 'c' | 'd' | 'e' | 'f' | 'g' | 'h' | 'i' | 'j' | 'k' | 'l' | 'm' | 'n' | 'o' | 'p' | 'q' | 'r'
  | 's' | 't' | 'u' | 'v' | 'w' | 'x' | 'y' | 'z' | '_' | '0' | '1' | '2' | '3' | '4' | '5' | '6' | '7' | '8' | '9';

/**
 * Rows for a FROM, made of parallel arrays, with their number `n` as last column: `rowsOf('i', 'tenantId text')` has the
 * column `tenant_id` from the parameter `:tenantId`, an array.
 *
 * Sub-selects hide the arrays from the planner. Otherwise it would plan for their contents, each time anew, which takes
 * longer than the statement itself. So it plans once, for ten rows.
 */
export function rowsOf<const Columns extends readonly `${string} ${string}`[]>(
  alias: string,
  ...columns: Columns
): Mentioned<Columns> {
  const arrays = columns.map((column) => `(SELECT :${column.replace(' ', '::')}[])`);
  const names = columns.map((column) => snakeCase(column.slice(0, column.indexOf(' '))));
  return `unnest(${arrays.join(', ')}) WITH ORDINALITY AS ${alias} (${names.join(', ')}, n)` as Mentioned<Columns>;
}

/** The part of the text that the compiler needs. */
type Mentioned<Columns extends readonly string[]> = Columns extends readonly [
  `${infer Name} ${string}`,
  ...infer Rest extends readonly string[],
]
  ? `:${Name} ${Mentioned<Rest>}`
  : '';

function snakeCase(name: string): string {
  return name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

/**
 * SELECT of those rows `a` of a FROM whose operations `o` meet the condition, with a lock on the operation. An operation that
 * another transaction holds is left out, because one locked row must not keep the others waiting.
 */
export const locked = <const From extends string, const Condition extends string>(
  from: From,
  condition: Condition,
) =>
  `SELECT a.*
  FROM ${from} CROSS JOIN LATERAL (
    SELECT FROM {schema}.job_outcomes o
    WHERE o.tenant_id = a.tenant_id AND o.operation_key = a.operation_key AND ${condition}
    LIMIT 1
    FOR UPDATE SKIP LOCKED
  ) o` as const;

/**
 * For a join of rows with the operations that they name: has each looked up by its key. It is true of every key.
 *
 * In a partitioned ledger, the planner counts every row as one look-up in each partition, since only the executor knows the
 * one that its tenant is in. It then takes it for cheaper to read all operations and to hash them. It believes that few rows
 * meet this condition, and so looks them up. For the same reason, a query that finds one operation says `LIMIT 1`; without it,
 * the plan that is kept seems so dear that each execution is planned anew. An EXISTS says `OFFSET 0` instead, as Postgres
 * ignores a LIMIT there.
 */
export const lookedUpByKey = <const Key extends string>(key: Key) =>
  `char_length(${key}) BETWEEN 1 AND ${MAX_OPERATION_KEY_LENGTH}` as const;

/** For {@link rowsOf}: sends NULL for an array that holds only nulls, as arrays of seldom used columns mostly do. */
export function sparse<T>(values: readonly (T | null)[]): readonly (T | null)[] | null {
  return values.every((value) => value === null) ? null : values;
}

/** An interval in ms; for a timestamp, the ms since 1970. */
export function ms<const Sql extends string>(interval: Sql): `EXTRACT(EPOCH FROM ${Sql})::float8 * 1000` {
  return `EXTRACT(EPOCH FROM ${interval})::float8 * 1000`;
}

/**
 * The time now, read once per statement. An index is searched up to it, where `clock_timestamp()` itself, which may change from
 * row to row, would be compared with every row that the index has.
 */
export const NOW = '(SELECT clock_timestamp())';

/** The moment so many ms from now. */
export function inMs<const Sql extends string>(
  duration: Sql,
): `clock_timestamp() + ${Sql} * interval '1 millisecond'` {
  return `clock_timestamp() + ${duration} * interval '1 millisecond'`;
}

/**
 * How long a statement about a single row waits for that row's lock, in ms. Its caller retries, and leaves the connection
 * to others in between: callers that wait for rows of one tenant must not delay those of all others.
 */
export const ROW_LOCK_MS = 50;

/**
 * For a statement's WITH: sets that limit for the rest of its transaction. The part that locks the row must read from it,
 * so that the limit is set first.
 */
export const PATIENCE = `patience AS MATERIALIZED (
  SELECT set_config('lock_timeout', '${ROW_LOCK_MS}ms', true) AS lock_timeout
)`;
