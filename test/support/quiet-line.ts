import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import type { Place } from './place.js';

/** A connection to a server that can fall silent: it stays open, and nothing comes through. */
export class QuietLine {
  readonly #sockets = new Set<Socket>();
  #isSilent = false;

  private constructor(
    private readonly server: Server,
    /** The server's URL by way of this line. */
    readonly url: string,
  ) {}

  static async to(serverUrl: string): Promise<QuietLine> {
    const target = new URL(serverUrl);
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const url = new URL(serverUrl);
    url.hostname = '127.0.0.1';
    url.port = String((server.address() as AddressInfo).port);
    const line = new QuietLine(server, url.toString());
    server.on('connection', (client) => line.#join(client, connect(Number(target.port), target.hostname)));
    return line;
  }

  silence(): void {
    this.#isSilent = true;
    for (const socket of this.#sockets) socket.pause();
  }

  speak(): void {
    this.#isSilent = false;
    for (const socket of this.#sockets) socket.resume();
  }

  async end(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.server.close(resolve));
  }

  #join(client: Socket, upstream: Socket): void {
    for (const [from, to] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      this.#sockets.add(from);
      from.on('data', (data) => to.write(data));
      from.on('error', () => undefined);
      from.on('close', () => {
        this.#sockets.delete(from);
        to.destroy();
      });
      if (this.#isSilent) from.pause();
    }
  }
}

/** Where the queues of a place are. */
const serverOf = ({ backend, databaseUrl, connection }: Place): string =>
  backend === 'postgres' ? databaseUrl : (connection as { url: string }).url;
const connectionBy = ({ backend, connection }: Place, url: string): object => ({
  ...connection,
  ...(backend === 'postgres' ? { connectionString: url } : { url }),
});

/** The place, with the way to its ledger or to its queues through a line that can fall silent. */
export async function detourOf(
  place: Place,
  to: 'ledger' | 'queue',
): Promise<{ place: Place; line: QuietLine }> {
  const line = await QuietLine.to(to === 'ledger' ? place.databaseUrl : serverOf(place));
  const detour = to === 'ledger' ? { databaseUrl: line.url } : { connection: connectionBy(place, line.url) };
  return { place: { ...place, ...detour }, line };
}
