/**
 * Postgres has not answered a statement, or could not be asked: the connection was refused or lost, none was free, or the
 * answer did not come in time. It is unknown whether the statement has taken effect.
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
 * The error to throw for a failed statement. An error of Postgres, with its SQLSTATE, stays as it is; any other error of
 * the driver becomes a NoConnectionError. Bugs stay bugs.
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

/** Whether the error comes from Postgres itself: only those have a severity beside their SQLSTATE. */
function isPostgresError(error: unknown): error is { readonly code: string } {
  const { code, severity } = (error ?? {}) as { code?: unknown; severity?: unknown };
  return typeof severity === 'string' && typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code);
}

/** The SQLSTATE of an error of Postgres. Undefined for any other error. */
export function sqlStateOf(error: unknown): string | undefined {
  return isPostgresError(error) ? error.code : undefined;
}

/** SQLSTATEs that the library acts on. https://www.postgresql.org/docs/current/errcodes-appendix.html */
export const LOCK_NOT_AVAILABLE = '55P03';
export const QUERY_CANCELED = '57014';
export const DEADLOCK_DETECTED = '40P01';
export const UNIQUE_VIOLATION = '23505';
export const SERIALIZATION_FAILURE = '40001';
