import { rm } from 'node:fs/promises';
import { Client } from 'pg';
import type { ServerProcess } from '../process/server-process.js';
import type { Watchdog } from '../process/watchdog.js';

/** The maintenance database that every cluster has. */
const FIRST_DATABASE = 'postgres';

/** The server's URL. It has no password: the server is on loopback only, and short-lived. */
export function postgresUrl(port: number, database = FIRST_DATABASE): string {
  return `postgres://postgres@127.0.0.1:${port}/${encodeURIComponent(database)}`;
}

/** A running private Postgres server. */
export class LocalPostgres {
  /** The URL of the maintenance database `postgres`; {@link createDatabase} returns that of a fresh one. */
  readonly url: string;

  constructor(
    readonly port: number,
    private readonly server: ServerProcess,
    private readonly watchdog: Watchdog,
    private readonly directories: readonly string[],
  ) {
    this.url = postgresUrl(port);
  }

  /** The postmaster's process id while it runs. */
  get pid(): number | undefined {
    return this.server.pid;
  }

  /** Creates an empty database and returns its URL. */
  async createDatabase(name: string): Promise<string> {
    const client = new Client({ connectionString: this.url });
    await client.connect();
    try {
      await client.query(`CREATE DATABASE ${client.escapeIdentifier(name)}`);
    } finally {
      await client.end();
    }
    return postgresUrl(this.port, name);
  }

  /** Ends every session, stops the server and removes its files (unless `persistent`). It cannot be restarted. */
  async stop(): Promise<void> {
    await this.server.end('SIGINT');
    for (const directory of this.directories) await rm(directory, { recursive: true, force: true });
    this.watchdog.dismiss();
  }

  /** Stops as in a power cut: connections break, nothing is flushed. The data stays for {@link restart}. */
  async stopImmediately(): Promise<void> {
    await this.server.end('SIGQUIT');
  }

  /** Starts again with the same port and data; shuts the server down first if it still runs. */
  async restart(): Promise<void> {
    await this.server.end('SIGINT');
    await this.server.start();
  }
}
