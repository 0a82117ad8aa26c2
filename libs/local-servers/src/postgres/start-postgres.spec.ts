import { existsSync, mkdtempSync, rmSync, writeFileSync, chmodSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client } from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { LocalPostgres } from './local-postgres.js';
import { startPostgres } from './start-postgres.js';

async function query(url: string, sql: string): Promise<unknown[]> {
  const client = new Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query({ text: sql, rowMode: 'array' })).rows;
  } finally {
    await client.end();
  }
}

describe('startPostgres', () => {
  let postgres: LocalPostgres;
  beforeAll(async () => {
    postgres = await startPostgres();
  }, 60_000);
  afterAll(() => postgres.stop());

  it('listens on the port of its url, with the settings of a throwaway server', async () => {
    const settings = await query(
      postgres.url,
      `SELECT name, setting FROM pg_settings WHERE name IN
        ('port', 'fsync', 'full_page_writes', 'synchronous_commit', 'max_connections', 'listen_addresses')`,
    );
    expect(Object.fromEntries(settings as [string, string][])).toEqual({
      port: String(postgres.port),
      fsync: 'off',
      full_page_writes: 'off',
      synchronous_commit: 'on',
      max_connections: '600',
      listen_addresses: '127.0.0.1',
    });
  });

  it('creates databases whose names need quoting', async () => {
    const url = await postgres.createDatabase('a "quoted" name');
    expect(await query(url, 'SELECT current_database()')).toEqual([['a "quoted" name']]);
  });

  it('keeps what was committed through an immediate stop', async () => {
    const url = await postgres.createDatabase('survivor');
    await query(url, 'CREATE TABLE note AS SELECT 1 AS number');
    await postgres.stopImmediately();
    await expect(query(url, 'SELECT 1')).rejects.toThrow('ECONNREFUSED');
    await postgres.restart();
    expect(await query(url, 'SELECT number FROM note')).toEqual([[1]]);
  });

  it('restarts while it is running, on the same port', async () => {
    const before = postgres.pid;
    await postgres.restart();
    expect(postgres.pid).not.toBe(before);
    expect(await query(postgres.url, 'SELECT 1')).toEqual([[1]]);
  });
});

describe('startPostgres with a data directory', () => {
  let directory: string;
  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), 'start-postgres-spec-'));
    chmodSync(directory, 0o755);
  });
  afterAll(() => rmSync(directory, { recursive: true, force: true }));

  it('finds the data of the last time again when persistent', async () => {
    const options = { dataDirectory: join(directory, 'kept'), persistent: true, durable: true };
    const first = await startPostgres(options);
    await query(first.url, 'CREATE TABLE note AS SELECT 1 AS number');
    expect(await query(first.url, 'SHOW fsync')).toEqual([['on']]);
    await first.stop();

    const second = await startPostgres(options);
    expect(await query(second.url, 'SELECT number FROM note')).toEqual([[1]]);
    await second.stop();
  }, 60_000);

  it('removes the data that it created when not persistent', async () => {
    const dataDirectory = join(directory, 'removed');
    await (await startPostgres({ dataDirectory })).stop();
    expect(existsSync(dataDirectory)).toBe(false);
  }, 60_000);

  it('fails with the log of the server when it cannot start', async () => {
    const dataDirectory = join(directory, 'broken');
    await (await startPostgres({ dataDirectory, persistent: true })).stop();
    writeFileSync(join(dataDirectory, 'PG_VERSION'), '9\n');
    await expect(startPostgres({ dataDirectory, persistent: true })).rejects.toThrow(
      'database files are incompatible with server',
    );
  }, 60_000);

  it('refuses persistence without a place for it', async () => {
    await expect(startPostgres({ persistent: true })).rejects.toThrow('needs a dataDirectory');
  });
});
