import { randomUUID } from 'node:crypto';
import { Client } from 'pg';
import { inject } from 'vitest';
import type { Backend, Place } from './place.js';

/** The backends there are here. Redis suites are skipped, and said to be, where there is no Redis. */
export const BACKENDS: readonly Backend[] =
  inject('redisUrl') === undefined ? ['postgres'] : ['redis', 'postgres'];

export async function makePlace(backend: Backend): Promise<Place> {
  const name = `test_${randomUUID().replaceAll('-', '')}`;
  const admin = new Client({ connectionString: inject('postgresUrl') });
  await admin.connect();
  await admin.query(`CREATE DATABASE ${name}`);
  await admin.end();
  const url = new URL(inject('postgresUrl'));
  url.pathname = `/${name}`;
  const databaseUrl = url.toString();
  const connection =
    backend === 'postgres'
      ? { connectionString: databaseUrl, migrate: true, max: 4 }
      : { url: inject('redisUrl') };
  return { backend, databaseUrl, connection, prefix: name };
}

export { dataSourceOf } from './data-source.js';
