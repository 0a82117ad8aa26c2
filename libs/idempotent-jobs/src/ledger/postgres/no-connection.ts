import { isPostgresError, sqlStateOf } from './sqlstate.js';

/**
 * Postgres has not answered a statement, or could not be asked: the connection was refused or lost, none was free, or
 * the answer did not come in time. Whether the statement has taken effect, nobody knows.
 */
export class NoConnectionError extends Error {
  override readonly name = 'NoConnectionError';
}

/** The answer to a statement did not come in time. Its connection takes no other statement. */
export class NoAnswerError extends NoConnectionError {
  constructor(ms: number) {
    super(`Postgres has not answered within ${ms} ms.`);
  }
}

/**
 * What a statement's failure is called: an error of Postgres, with its SQLSTATE, as it is; whatever else the driver throws
 * says that there was no answer. Bugs stay bugs.
 */
export function namedFailure(error: unknown): unknown {
  if (error instanceof NoConnectionError || error instanceof TypeError || isPostgresError(error))
    return error;
  const { message } = (error ?? {}) as { message?: unknown };
  return new NoConnectionError(typeof message === 'string' ? message : String(error), { cause: error });
}

/** Lost or refused connections, and a server that starts, stops or has no connection to spare. */
export function isConnectionTrouble(error: unknown): boolean {
  if (error instanceof NoConnectionError) return true;
  const state = sqlStateOf(error);
  return state !== undefined && /^(?:08|57P0|53)/.test(state);
}
