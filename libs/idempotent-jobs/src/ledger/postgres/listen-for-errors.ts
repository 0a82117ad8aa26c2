import type { ConnectionPool, PooledConnection } from './connection.js';

const listened = new WeakSet<object>();

/**
 * Gives every connection of a pool a listener that stays. pg-pool takes its own away before whoever waits for the
 * connection can listen: a server that says goodbye in that moment (a planned restart) would end the process by an
 * unhandled 'error' event. What the error means is told by the statement that meets it.
 */
export function listenForErrors(pool: Pick<ConnectionPool, 'on'>): void {
  if (listened.has(pool)) return;
  listened.add(pool);
  const listen = (connection: PooledConnection): void => {
    if (listened.has(connection)) return;
    listened.add(connection);
    connection.on('error', () => undefined);
  };
  // Also those that were made before: each is seen when it is handed out next.
  pool.on('connect', listen);
  pool.on('acquire', listen);
  pool.on('error', () => undefined);
}
