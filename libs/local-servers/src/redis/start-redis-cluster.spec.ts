import { existsSync } from 'node:fs';
import { Cluster, Redis } from 'ioredis';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { isRedisInstalled } from './start-redis.js';
import { type LocalRedisCluster, startRedisCluster } from './start-redis-cluster.js';

const isInstalled = isRedisInstalled();
if (!isInstalled)
  console.warn('SKIPPED: the specs of startRedisCluster, because there is no redis-server on the PATH');

/** Their slots are in the first, the second and the last third. */
const KEYS = ['b', 'c', 'a'];

describe.skipIf(!isInstalled)('startRedisCluster', () => {
  let local: LocalRedisCluster;
  let cluster: Cluster;
  beforeAll(async () => {
    local = (await startRedisCluster())!;
    cluster = new Cluster(local.masters.map(({ port }) => ({ host: '127.0.0.1', port })));
  });
  afterAll(async () => {
    cluster.disconnect();
    const directories = local.masters.map(({ directory }) => directory);
    await local.stop();
    expect(directories.filter((directory) => existsSync(directory))).toEqual([]);
  });

  const keysOn = async (port: number): Promise<string[]> => {
    const redis = new Redis({ port, lazyConnect: true });
    await redis.connect();
    try {
      return await redis.keys('*');
    } finally {
      redis.disconnect();
    }
  };

  it('spreads the keys over three masters', async () => {
    for (const key of KEYS) await cluster.set(key, 'value');
    const found = await Promise.all(local.masters.map(({ port }) => keysOn(port)));
    expect(found).toEqual(KEYS.map((key) => [key]));
  });

  it('takes a master back that was killed, with its slots and without its data', async () => {
    for (const key of KEYS) await cluster.set(key, 'value');
    const [, second] = local.masters;
    await second?.kill();
    expect(second?.pid).toBeUndefined();
    await second?.restart();
    const read = (): Promise<unknown> => Promise.all(KEYS.map((key) => cluster.get(key)));
    // Until its return has gone round, commands are refused.
    await expect
      .poll(() => read().catch((error: unknown) => error), { timeout: 30_000 })
      .toEqual(['value', null, 'value']);
  });
});

it('gives no cluster where there is no redis-server on the PATH', async () => {
  const path = process.env.PATH;
  process.env.PATH = '/nowhere';
  try {
    expect(await startRedisCluster()).toBeUndefined();
  } finally {
    process.env.PATH = path;
  }
});
