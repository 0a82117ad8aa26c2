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
