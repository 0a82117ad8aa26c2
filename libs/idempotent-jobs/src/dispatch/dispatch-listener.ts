import { Injectable } from '@nestjs/common';
import type { Duplex } from 'node:stream';
import type { Client } from 'pg';
import { dispatchChannel } from '../producer/operation.store.js';
import { LibraryLog } from '../events/library-log.js';
import { Database } from '../ledger/postgres/database.js';
import { answered, QUERY_TIMEOUT_MS } from '../ledger/postgres/ledger-pool.js';
import { isOverWithin } from '../operation/within.js';
import { Due } from '../producer/due.js';

/**
 * Wakes the dispatcher when another process, or a caller's own transaction, has committed an operation. Uses a connection
 * of its own with the pool's options. Losing that connection costs latency, not operations, because the dispatcher polls.
 */
@Injectable()
export class DispatchListener {
  #client: Client | undefined;
  #timer: NodeJS.Timeout | undefined;
  #isStopped = false;

  constructor(
    private readonly database: Database,
    private readonly due: Due,
    private readonly log: LibraryLog,
  ) {}

  /** Never rejects; a connection that fails is made again. */
  async start(): Promise<void> {
    if (this.#isStopped) return;
    const { Client: ClientClass, options } = this.database.own.client;
    const client = new ClientClass(options) as Client;
    this.#client = client;
    client.on('notification', () => this.due.wake());
    client.on('error', (error) => this.#restart(client, error));
    client.on('end', () => this.#restart(client));
    try {
      await client.connect();
      await answered(client.query(`LISTEN "${dispatchChannel(this.database.schema)}"`), QUERY_TIMEOUT_MS);
      // Covers what was announced before this connection listened.
      this.due.wake();
    } catch (error) {
      this.#restart(client, error);
    }
  }

  /** Closes the connection, for at most `closeMs`: a server that does not answer is abandoned. */
  async stop(closeMs: number): Promise<void> {
    this.#isStopped = true;
    clearTimeout(this.#timer);
    const client = this.#client;
    this.#client = undefined;
    if (client !== undefined && !(await isOverWithin(closeMs, end(client)))) hangUp(client);
  }

  #restart(client: Client, error?: unknown): void {
    if (this.#isStopped || this.#client !== client) return;
    this.#client = undefined;
    if (error !== undefined)
      this.log.trouble('The dispatcher lost its LISTEN connection; polling until it is back', error);
    // A silent server may never answer the goodbye.
    void isOverWithin(GOODBYE_MS, end(client)).then((isOver) => isOver || hangUp(client));
    this.#timer = setTimeout(() => void this.start(), RECONNECT_MS);
    this.#timer.unref();
  }
}

const RECONNECT_MS = 2_000;
const GOODBYE_MS = 1_000;

function end(client: Client): Promise<void> {
  return client.end().catch(() => undefined);
}

/** Closes the socket, for which pg has no method. */
function hangUp(client: Client): void {
  (client as unknown as { connection: { stream: Duplex } }).connection.stream.destroy();
}
