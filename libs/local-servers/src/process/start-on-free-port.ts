import { freePort } from './free-port.js';

/** Somebody else may take a port between our look and the server's bind; three times in a row is not bad luck. */
const TRIES = 3;

/** Calls `start` with a free port, again with another one when the server's log says that it was taken. */
export async function startOnFreePort(start: (port: number) => Promise<void>): Promise<number> {
  for (let attempt = 1; ; attempt++) {
    const port = await freePort();
    try {
      await start(port);
      return port;
    } catch (error) {
      if (attempt === TRIES || !/address already in use/i.test(String(error))) throw error;
    }
  }
}
