import type { ConnectionPool, PooledConnection } from './connection.js';

const listened = new WeakSet<object>();

/**
 * Gives every connection of a pool a permanent error listener. pg-pool removes its own before the caller that waits for
 * the connection can add one: a server that closes the connection at that moment (a planned restart) would end the process
 * with an unhandled 'error' event. The statement that fails on the connection reports the error.
 */
export function listenForErrors(pool: Pick<ConnectionPool, 'on'>): void {
  if (listened.has(pool)) return;
  listened.add(pool);
  const listen = (connection: PooledConnection): void => {
    if (listened.has(connection)) return;
    listened.add(connection);
    connection.on('error', () => undefined);
  };
  // Connections that were made before get their listener when they are next handed out.
  pool.on('connect', listen);
  pool.on('acquire', listen);
  pool.on('error', () => undefined);
}
