import { startPostgres, startRedis } from 'local-servers';
import type { TestProject } from 'vitest/node';
import { variable } from './environment.js';

declare module 'vitest' {
  export interface ProvidedContext {
    /** A private Postgres server; each suite makes databases of its own on it. */
    postgresUrl: string;
    /** A Redis, if there is one. */
    redisUrl: string | undefined;
  }
}

/** Starts the private servers that all suites share, and stops them again. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const postgres = await startPostgres();
  const givenRedisUrl = variable('REDIS_URL');
  const ownRedis = givenRedisUrl === undefined ? await startRedis() : undefined;
  const redisUrl = givenRedisUrl ?? ownRedis?.url;
  if (redisUrl === undefined) {
    if (variable('REQUIRE_REDIS') !== undefined)
      throw new Error('REQUIRE_REDIS is set, but there is no redis-server on the PATH and no REDIS_URL.');
    console.warn(
      '\n*** SKIPPED: all Redis suites. There is no redis-server on the PATH and REDIS_URL is not set. ***\n',
    );
  }
  project.provide('postgresUrl', postgres.url);
  project.provide('redisUrl', redisUrl);
  return async () => {
    await ownRedis?.stop();
    await postgres.stop();
  };
}
