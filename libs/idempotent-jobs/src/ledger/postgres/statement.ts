import type { Lane } from './lanes.js';

/**
 * One SQL statement of the library, named by the transition it makes. `{schema}` in the text stands for the quoted
 * schema of the ledger. The name becomes the name of a prepared statement, so Postgres plans it once a connection.
 */
export interface Statement {
  readonly name: string;
  readonly text: string;
  /** How urgent it is, when it is run by itself. */
  readonly lane: Lane;
}

/** Runs a statement in whatever transaction the caller has open. */
export type RunStatement = <Row>(statement: Statement, values: unknown[]) => Promise<Row[]>;

/** Declares a {@link Statement}. */
export function statement(name: string, text: string, lane: Lane = 'other'): Statement {
  return { name, text: text.trim(), lane };
}

/**
 * The rows that parallel arrays make, with their number at the end. Sub-selects hide the arrays from the planner: it would
 * plan for what is in them, each time anew, which takes longer than the statement itself. So it plans once, for ten rows.
 */
export function rowsOf(...arrays: readonly string[]): string {
  return `unnest(${arrays.map((array) => `(SELECT ${array})`).join(', ')}) WITH ORDINALITY`;
}

/** For {@link rowsOf}: an array that holds nothing but nulls, as most do that are seldom used, need not be sent at all. */
export function sparse<T>(values: readonly (T | null)[]): readonly (T | null)[] | null {
  return values.every((value) => value === null) ? null : values;
}
