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

/** Declares a {@link Statement}. */
export function statement(name: string, text: string, lane: Lane = 'other'): Statement {
  return { name, text: text.trim(), lane };
}
