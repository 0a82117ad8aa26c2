import { randomUUID } from 'node:crypto';
import { existsSync, statfsSync } from 'node:fs';
import { join } from 'node:path';
import { startPostgres, startRedis } from 'local-servers';
import { getDataSourceToken } from '@nestjs/typeorm';
import { Client } from 'pg';
import type { DataSource } from 'typeorm';
import type { TestProject } from 'vitest/node';
import { bundleProgram, RUN_PROGRAM } from './bundle-program.js';
import { type Backend, BACKENDS_OF_BULLMQ, placeIn, type Servers, TEMPLATES } from './place.js';
import { startApp } from './start-app.js';

declare module 'vitest' {
  export interface ProvidedContext {
    /** A private Postgres server; each case makes databases of its own on it. */
    postgresUrl: string;
    /** A Redis, if there is one. */
    redisUrl: string | undefined;
    /** The program that tests start beside themselves: its bundle, and the file that runs it. */
    program: { readonly runner: string; readonly bundle: string };
  }
}

/** Where Linux keeps files in memory: a database is created there in a tenth of the time. */
const IN_MEMORY = '/dev/shm';

/** Starts the private servers that all suites share, and stops them again. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const postgres = await startPostgres(dataInMemory());
  // One that is set to nothing counts as not set.
  const givenRedisUrl = process.env['REDIS_URL'] || undefined;
  const ownRedis = givenRedisUrl === undefined ? await startRedis() : undefined;
  const redisUrl = givenRedisUrl ?? ownRedis?.url;
  if (redisUrl === undefined) {
    if (process.env['REQUIRE_REDIS'])
      throw new Error('REQUIRE_REDIS is set, but there is no redis-server on the PATH and no REDIS_URL.');
    console.warn(
      '\n*** SKIPPED: all Redis suites. There is no redis-server on the PATH and REDIS_URL is not set. ***\n',
    );
  }
  const servers = { postgresUrl: postgres.url, redisUrl };
  await makeTemplates(servers);
  const program = await bundleProgram();
  const place = placeIn(servers, WITHOUT_REDIS, 'nobody_looks');
  await program.compile({ place, effect: 'natural', leaseMs: 1000, act: 'work' });
  project.provide('program', { runner: RUN_PROGRAM, bundle: program.file });
  project.provide('postgresUrl', postgres.url);
  project.provide('redisUrl', redisUrl);
  return async () => {
    await program.remove();
    await ownRedis?.stop();
    await postgres.stop();
  };
}

/** Nowhere in particular where there is too little of it, as in a container. */
function dataInMemory(): { dataDirectory?: string } {
  if (!existsSync(IN_MEMORY)) return {};
  const { bavail, bsize } = statfsSync(IN_MEMORY);
  if (bavail * bsize < 4 * 1024 ** 3) return {};
  return { dataDirectory: join(IN_MEMORY, `nestjs-idempotent-jobs-${randomUUID()}`) };
}

/** Postgres where BullMQ has that: the servers may be without Redis. */
const WITHOUT_REDIS = BACKENDS_OF_BULLMQ.at(-1) as Backend;

/** A database for each backend, as an application leaves it that has just started: those of the tests are copies. */
async function makeTemplates(servers: Servers): Promise<void> {
  const admin = new Client({ connectionString: servers.postgresUrl });
  await admin.connect();
  // The databases of tests live for seconds, and there are many: it would look for work ten times a second.
  await admin.query('ALTER SYSTEM SET autovacuum = off');
  await admin.query('SELECT pg_reload_conf()');
  for (const backend of BACKENDS_OF_BULLMQ) {
    if (backend === 'redis' && servers.redisUrl === undefined) continue;
    const template = TEMPLATES[backend];
    await admin.query(`CREATE DATABASE ${template}`);
    // BullMQ makes its tables in Postgres for the first queue.
    const place = placeIn(servers, backend, template, true);
    const app = await startApp(place, { queues: backend === 'postgres' ? ['first'] : [] });
    await app.get<DataSource>(getDataSourceToken()).query('DELETE FROM job_queues');
    await app.close();
  }
  // For the process in which no test looks.
  await admin.query(`CREATE DATABASE nobody_looks TEMPLATE ${TEMPLATES[WITHOUT_REDIS]}`);
  await admin.end();
}
