/** Whether the error comes from Postgres itself: only those have a severity beside their SQLSTATE. */
export function isPostgresError(error: unknown): error is { readonly code: string } {
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
