import { randomUUID } from 'node:crypto';
import { Client } from 'pg';
import { inject, onTestFinished, TestRunner } from 'vitest';
import { type Backend, BACKENDS_OF_BULLMQ, type Place, placeIn, TEMPLATES } from './place.js';

/** The backends there are here. Redis suites are skipped, and said to be, where there is no Redis. */
export const BACKENDS: readonly Backend[] = BACKENDS_OF_BULLMQ.filter(
  (backend) => backend === 'postgres' || inject('redisUrl') !== undefined,
);

/** BullMQ has them since version 6. */
export const HAS_QUEUES_IN_POSTGRES = BACKENDS.includes('postgres');

/** Where it does not matter where the queues are: the quicker one. */
export const ANY_BACKEND: Backend = BACKENDS.at(-1) ?? 'postgres';

/** A place for one test, in which an application has been: the schemas are there, and no rows. */
export function makePlace(backend: Backend): Promise<Place> {
  return place(backend, TEMPLATES[backend], false);
}

/** A place for one test, in which nobody has been. */
export function makeEmptyPlace(backend: Backend): Promise<Place> {
  return place(backend, 'template1', true);
}

async function place(backend: Backend, template: string, isEmpty: boolean): Promise<Place> {
  const name = `test_${randomUUID().replaceAll('-', '')}`;
  await onServer(async (admin) => {
    strategy ??= strategyOf(admin);
    await admin.query(`CREATE DATABASE ${name} TEMPLATE ${template} ${await strategy}`);
  });
  // Those of a whole file stay until the server goes.
  if (TestRunner.getCurrentTest() !== undefined) onTestFinished(() => onServer((admin) => drop(admin, name)));
  const servers = { postgresUrl: inject('postgresUrl'), redisUrl: inject('redisUrl') };
  return placeIn(servers, backend, name, isEmpty);
}

let strategy: Promise<string> | undefined;

/** The fastest way to copy a small database, which Postgres before 15 takes without being told. */
async function strategyOf(admin: Client): Promise<string> {
  const { rows } = await admin.query<{ version: number }>(
    `SELECT current_setting('server_version_num')::integer AS version`,
  );
  return (rows[0] as { version: number }).version >= 150_000 ? 'STRATEGY file_copy' : '';
}

/**
 * Drops a database, unless an application that was refused at boot still has connections to it, or is just making one:
 * their end would be an error that the application does not listen for any more. Such a database stays until the server
 * goes.
 */
async function drop(admin: Client, name: string): Promise<void> {
  const sessions = await admin.query('SELECT FROM pg_stat_activity WHERE datname = $1', [name]);
  if (sessions.rowCount !== 0) return;
  await admin.query(`DROP DATABASE ${name}`).catch((error: { code?: string }) => {
    if (error.code !== IN_USE) throw error;
  });
}

const IN_USE = '55006';

let server: Promise<Client> | undefined;

/** All tests of a process share a connection, which ends with the process. */
async function onServer<T>(work: (admin: Client) => Promise<T>): Promise<T> {
  server ??= connect();
  return work(await server);
}

async function connect(): Promise<Client> {
  const admin = new Client({ connectionString: inject('postgresUrl') });
  // The server may be stopped before the process is.
  admin.on('error', () => undefined);
  await admin.connect();
  // pg's types do not know it.
  (admin as unknown as { unref(): void }).unref();
  return admin;
}

export { dataSourceOf } from './ledger.js';
