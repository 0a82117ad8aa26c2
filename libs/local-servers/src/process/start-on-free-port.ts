import { freePort } from './free-port.js';

/** Another process may take a port before the server binds it; three times in a row is not bad luck. */
const TRIES = 3;

/** Calls `start` with a free port, and again with another one when the server's log says that the port was taken. */
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
