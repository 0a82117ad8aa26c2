import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';

/**
 * A proxy in front of Postgres that steals one answer: the first request that holds the given text reaches the server,
 * and when the server answers, the connection is cut instead. To the client, what it asked for may or may not have
 * happened.
 */
export class AnswerThief {
  readonly #sockets = new Set<Socket>();
  #wanted: string | undefined;
  #holds = false;
  /** How many answers were stolen: each test must see that its fault happened. */
  stolen = 0;

  private constructor(
    private readonly server: Server,
    /** The database's URL by way of the proxy. */
    readonly url: string,
  ) {}

  static async before(databaseUrl: string): Promise<AnswerThief> {
    const target = new URL(databaseUrl);
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const url = new URL(databaseUrl);
    url.hostname = '127.0.0.1';
    url.port = String((server.address() as AddressInfo).port);
    const thief = new AnswerThief(server, url.toString());
    server.on('connection', (client) => thief.#pass(client, connect(Number(target.port), target.hostname)));
    return thief;
  }

  /** Steals the answer to the next request that holds the text. */
  steal(text: string): void {
    this.#wanted = text;
  }

  /** Likewise, but the client is left waiting instead of cut off. */
  holdBack(text: string): void {
    this.#holds = true;
    this.steal(text);
  }

  async stop(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.server.close(resolve));
  }

  #pass(client: Socket, upstream: Socket): void {
    let isMarked = false;
    for (const socket of [client, upstream]) {
      this.#sockets.add(socket);
      socket.on('error', () => undefined);
      socket.on('close', () => {
        client.destroy();
        upstream.destroy();
        this.#sockets.delete(socket);
      });
    }
    client.on('data', (request) => {
      if (this.#wanted !== undefined && request.includes(this.#wanted)) {
        this.#wanted = undefined;
        isMarked = true;
      }
      upstream.write(request);
    });
    upstream.on('data', (answer) => {
      if (isMarked) {
        this.stolen += 1;
        if (!this.#holds) client.destroy();
      } else {
        client.write(answer);
      }
    });
  }
}
