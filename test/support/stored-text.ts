import type { INestApplicationContext } from '@nestjs/common';
import { Redis } from 'ioredis';
import { dataSourceOf } from './ledger.js';
import type { Place } from './place.js';

/** How to read a key of each type as a whole. */
const READ: Readonly<Record<string, (redis: Redis, key: string) => Promise<unknown>>> = {
  string: (redis, key) => redis.get(key),
  hash: (redis, key) => redis.hgetall(key),
  list: (redis, key) => redis.lrange(key, 0, -1),
  set: (redis, key) => redis.smembers(key),
  zset: (redis, key) => redis.zrange(key, 0, -1),
  stream: (redis, key) => redis.xrange(key, '-', '+'),
  none: () => Promise.resolve(),
};

/** All that is stored in a place, as text: every row of every table, and every key of its queues in Redis. */
export async function storedText(app: INestApplicationContext, place: Place): Promise<string> {
  const source = dataSourceOf(app);
  const tables = await source.query<{ name: string }[]>(
    `SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables
     WHERE schemaname NOT IN ('pg_catalog', 'information_schema')`,
  );
  const parts: unknown[] = [];
  for (const { name } of tables) parts.push(name, await source.query(`SELECT t::text FROM ${name} t`));
  if (place.backend === 'redis') parts.push(await redisKeys(place));
  return JSON.stringify(parts);
}

async function redisKeys(place: Place): Promise<unknown[]> {
  const redis = new Redis((place.connection as { url: string }).url);
  try {
    const parts: unknown[] = [];
    for (const key of await redis.keys(`${place.prefix}:*`)) {
      const type = await redis.type(key);
      const read = READ[type];
      if (read === undefined) throw new Error(`${key} is a ${type}, which nobody reads here.`);
      parts.push(key, await read(redis, key));
    }
    return parts;
  } finally {
    redis.disconnect();
  }
}
