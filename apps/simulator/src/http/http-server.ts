import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { InvalidRequestError } from '../faults/fault-settings.js';
import { Exchange } from './exchange.js';

/** `METHOD /path` → what answers it; a path that ends in `/` answers for everything below it. */
export type Routes = Readonly<Record<string, (exchange: Exchange) => void | Promise<void>>>;

export interface RunningServer {
  readonly port: number;
  close(): Promise<void>;
}

/** Serves the routes on loopback; port 0 is a free one. */
export async function startHttpServer(port: number, routes: Routes): Promise<RunningServer> {
  const server = createServer((request, response) => {
    void handle(routes, new Exchange(request, response));
  });
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    async close() {
      const closed = once(server, 'close');
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}

async function handle(routes: Routes, exchange: Exchange): Promise<void> {
  try {
    const { pathname } = exchange.url;
    const folder = pathname.slice(0, pathname.lastIndexOf('/') + 1);
    const route = routes[`${exchange.method} ${pathname}`] ?? routes[`${exchange.method} ${folder}`];
    if (route) await route(exchange);
    else exchange.answer(404, { error: `nothing answers ${exchange.method} ${pathname}` });
  } catch (error) {
    if (error instanceof InvalidRequestError) {
      exchange.answer(400, { error: error.message });
      return;
    }
    // A simulator that fails where no fault was asked for is no judge: it says so where a person looks.
    console.error(error);
    exchange.answer(500, { error: 'the simulator itself has failed, see its log' });
  }
}
