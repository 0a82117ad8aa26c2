/**
 * How long a statement about a single row waits for whoever holds it, in ms. Its caller comes again, and leaves the
 * connection to others in between: many that wait for rows of one tenant must not keep those of all others waiting.
 */
export const ROW_LOCK_MS = 50;

/**
 * For a statement's WITH: sets that limit for the rest of its transaction. Whatever takes the row's lock must read from it,
 * so that it is set before.
 */
export const PATIENCE = `patience AS MATERIALIZED (
  SELECT set_config('lock_timeout', '${ROW_LOCK_MS}ms', true) AS lock_timeout
)`;
