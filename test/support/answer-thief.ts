import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { afterEach } from 'vitest';

/** What becomes of the answer to a request that holds the wanted text. */
type Fate =
  /** The connection is cut instead. */
  | 'cut'
  /** Nothing comes, and nothing more on that connection, until the thief lets go. */
  | 'held'
  /** It comes together with the server's goodbye (57P01), as when the server is shut down in that moment. */
  | 'goodbye';

/**
 * A proxy in front of Postgres that steals answers: a request that holds the given text reaches the server, and what the
 * server answers does not reach the client as it should. To the client, what it asked for may or may not have happened.
 */
export class AnswerThief {
  readonly #sockets = new Set<Socket>();
  #wanted: string | undefined;
  #fate: Fate = 'cut';
  #isInsatiable = false;
  #held: { client: Socket; answers: Buffer[] }[] = [];
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
    this.#want(text, 'cut', false);
  }

  /** Likewise, but the client is left waiting instead of cut off. */
  holdBack(text: string): void {
    this.#want(text, 'held', false);
  }

  /** Of every request that holds the text, from now on until {@link letGo}. */
  holdBackAll(text: string): void {
    this.#want(text, 'held', true);
  }

  /** With every answer to a request that holds the text the server says goodbye, until {@link letGo}. */
  sayGoodbyeWith(text: string): void {
    this.#want(text, 'goodbye', true);
  }

  /** Steals nothing more, and keeps what it has. */
  rest(): void {
    this.#wanted = undefined;
  }

  /** Hands out what was held, and steals nothing more. */
  letGo(): void {
    this.#wanted = undefined;
    for (const { client, answers } of this.#held.splice(0))
      for (const answer of answers) client.write(answer);
  }

  async stop(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.server.close(resolve));
  }

  #want(text: string, fate: Fate, isInsatiable: boolean): void {
    this.#wanted = text;
    this.#fate = fate;
    this.#isInsatiable = isInsatiable;
  }

  #pass(client: Socket, upstream: Socket): void {
    let fate: Fate | undefined;
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
        if (!this.#isInsatiable) this.#wanted = undefined;
        fate = this.#fate;
      }
      upstream.write(request);
    });
    upstream.on('data', (answer) => {
      // A server says goodbye between two messages: in the middle of one nobody could read it.
      if (fate === undefined || (fate === 'goodbye' && !isWhole(answer))) {
        client.write(answer);
        return;
      }
      if (fate !== 'held' || !this.#held.some((one) => one.client === client)) this.stolen += 1;
      this.#suffer(client, answer, fate);
      if (fate === 'held' && !this.#held.some((one) => one.client === client)) fate = undefined;
    });
  }

  #suffer(client: Socket, answer: Buffer, fate: Fate): void {
    switch (fate) {
      case 'cut':
        client.destroy();
        return;
      case 'goodbye':
        client.end(Buffer.concat([answer, GOODBYE]));
        return;
      case 'held': {
        const held = this.#held.find((one) => one.client === client);
        if (held === undefined) this.#held.push({ client, answers: [answer] });
        else held.answers.push(answer);
        return;
      }
      default:
        return fate satisfies never;
    }
  }
}

/** ReadyForQuery, with which an answer ends, up to the state of the transaction. */
const READY = Buffer.from([0x5a, 0, 0, 0, 5]);

function isWhole(answer: Buffer): boolean {
  return answer.subarray(-READY.length - 1, -1).equals(READY);
}

/** ErrorResponse: FATAL 57P01, as a backend sends it that is told to end. */
const GOODBYE = ((): Buffer => {
  const fields = ['SFATAL', 'VFATAL', 'C57P01', 'Mterminating connection due to administrator command'];
  const body = Buffer.from(`${fields.map((field) => `${field}\0`).join('')}\0`);
  const head = Buffer.alloc(5);
  head.write('E');
  head.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
})();

/** Thieves that a test sets on a database; all are stopped when it ends, after the applications if it asks for these later. */
export interface TestThieves {
  before(databaseUrl: string): Promise<AnswerThief>;
}

export function useThieves(): TestThieves {
  const thieves: AnswerThief[] = [];
  afterEach(async () => {
    await Promise.all(thieves.splice(0).map((thief) => thief.stop()));
  });
  return {
    async before(databaseUrl) {
      const thief = await AnswerThief.before(databaseUrl);
      thieves.push(thief);
      return thief;
    },
  };
}
