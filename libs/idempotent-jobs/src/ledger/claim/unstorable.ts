import { sqlStateOf } from '../postgres/no-connection.js';

/** The class of SQLSTATEs which say that Postgres cannot store a value. */
const DATA_EXCEPTION = '22';

/** Postgres cannot store a value of the request, however often it is asked. Nothing was written. */
export class UnstorableError extends Error {
  override readonly name = 'UnstorableError';

  constructor(cause: unknown) {
    super('Postgres refuses its data', { cause });
  }
}

/** An error of a statement, as {@link UnstorableError} if it says that Postgres cannot store a value. */
export function asUnstorable(error: unknown): unknown {
  return sqlStateOf(error)?.startsWith(DATA_EXCEPTION) === true ? new UnstorableError(error) : error;
}
