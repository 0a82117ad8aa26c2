import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:net';

/**
 * Below the range that common systems use for outgoing connections (Linux starts at 32768). While a server is restarted,
 * any client could take a port of that range, even one that tries to connect to the server.
 */
const LOWEST = 15_000;
const HIGHEST = 32_000;
const TRIES = 100;

/**
 * Finds a loopback TCP port that no process listens on. Another process may still take it first: be ready to ask again.
 *
 * @throws Error when a hundred random ports were all taken
 */
export async function freePort(): Promise<number> {
  for (let attempt = 1; attempt <= TRIES; attempt++) {
    const port = randomInt(LOWEST, HIGHEST);
    if (await isFree(port)) return port;
  }
  throw new Error(`No free port found between ${LOWEST} and ${HIGHEST} after ${TRIES} tries`);
}

async function isFree(port: number): Promise<boolean> {
  const probe = createServer();
  try {
    probe.listen({ port, host: '127.0.0.1', exclusive: true });
    await once(probe, 'listening');
  } catch {
    return false;
  }
  probe.close();
  await once(probe, 'close');
  return true;
}
