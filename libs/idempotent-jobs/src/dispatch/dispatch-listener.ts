import type { Client } from 'pg';
import { dispatchChannel } from '../enqueue/operation.store.js';
import type { Database } from '../postgres/database.js';

/**
 * Wakes the dispatcher when another process, or a caller's own transaction, has committed an operation. Uses one
 * connection of its own, made from the pool's settings. Losing it costs latency, not operations: the dispatcher polls.
 */
export class DispatchListener {
  #client: Client | undefined;
  #timer: NodeJS.Timeout | undefined;
  #isStopped = false;

  constructor(
    private readonly database: Database,
    private readonly onNotification: () => void,
    private readonly onError: (message: string, error: unknown) => void,
  ) {}

  async start(): Promise<void> {
    if (this.#isStopped) return;
    const { Client: ClientClass, options } = this.database.own.client;
    const client = new ClientClass(options) as Client;
    this.#client = client;
    client.on('notification', this.onNotification);
    client.on('error', (error) => this.#restart(client, error));
    client.on('end', () => this.#restart(client));
    try {
      await client.connect();
      await client.query(`LISTEN "${dispatchChannel(this.database.schema)}"`);
      // What was announced while nobody listened.
      this.onNotification();
    } catch (error) {
      this.#restart(client, error);
    }
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    clearTimeout(this.#timer);
    const client = this.#client;
    this.#client = undefined;
    await client?.end().catch(() => undefined);
  }

  #restart(client: Client, error?: unknown): void {
    if (this.#isStopped || this.#client !== client) return;
    this.#client = undefined;
    if (error !== undefined)
      this.onError('The dispatcher lost its LISTEN connection; polling until it is back', error);
    client.end().catch(() => undefined);
    this.#timer = setTimeout(() => void this.start(), RECONNECT_MS);
    this.#timer.unref();
  }
}

const RECONNECT_MS = 2_000;
