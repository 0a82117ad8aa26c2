import { isRedisInstalled, type LocalRedis, startRedis } from 'local-servers';
import { makePlace } from './scenario.js';
import type { Place } from './place.js';

/** Whether tests can have a Redis server of their own, to flush and to kill; the shared one is nobody's to break. */
export const HAS_OWN_REDIS = isRedisInstalled();

if (!HAS_OWN_REDIS) {
  if (process.env['REQUIRE_REDIS'])
    throw new Error(
      'REQUIRE_REDIS is set, but there is no redis-server on the PATH for tests that break one.',
    );
  console.warn(
    '\n*** SKIPPED: suites that break a Redis server of their own. There is no redis-server on the PATH. ***\n',
  );
}

/** A Redis server that the caller may break and must stop. */
export async function startOwnRedis(): Promise<LocalRedis> {
  const redis = await startRedis();
  if (redis === undefined) throw new Error('There is no redis-server on the PATH; see HAS_OWN_REDIS');
  return redis;
}

/** A fresh place whose queues are on that server. */
export async function placeOn(redis: LocalRedis): Promise<Place> {
  return { ...(await makePlace('redis')), connection: { url: redis.url } };
}
