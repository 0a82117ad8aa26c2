import { existsSync } from 'node:fs';
import { Redis } from 'ioredis';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { isRedisInstalled, startRedis, type LocalRedis } from './start-redis.js';

const isInstalled = isRedisInstalled();
if (!isInstalled)
  console.warn('SKIPPED: the specs of startRedis, because there is no redis-server on the PATH');

async function ask<T>(url: string, question: (redis: Redis) => Promise<T>): Promise<T> {
  const redis = new Redis(url, { lazyConnect: true });
  await redis.connect();
  try {
    return await question(redis);
  } finally {
    redis.disconnect();
  }
}

describe.skipIf(!isInstalled)('startRedis', () => {
  let redis: LocalRedis;
  beforeAll(async () => {
    redis = (await startRedis())!;
  });
  afterAll(() => redis.stop());

  it('persists nothing, so that a kill loses everything', async () => {
    await ask(redis.url, (client) => client.set('key', 'value'));
    await redis.kill();
    expect(redis.pid).toBeUndefined();
    await redis.restart();
    expect(await ask(redis.url, (client) => client.get('key'))).toBeNull();
  });

  it('keeps its data over a kill when the flags ask for persistence', async () => {
    const durable = (await startRedis({ flags: ['--appendonly', 'yes', '--appendfsync', 'always'] }))!;
    await ask(durable.url, (client) => client.set('key', 'value'));
    await durable.kill();
    await durable.restart();
    expect(await ask(durable.url, (client) => client.get('key'))).toBe('value');
    await durable.stop();
    expect(existsSync(durable.directory)).toBe(false);
  });

  it('fails with the log of the server when it cannot start', async () => {
    await expect(startRedis({ flags: ['--maxmemory', 'much'] })).rejects.toThrow(/maxmemory/);
  });
});

it('gives no Redis where there is no redis-server on the PATH', async () => {
  const path = process.env.PATH;
  process.env.PATH = '/nowhere';
  try {
    expect(await startRedis()).toBeUndefined();
  } finally {
    process.env.PATH = path;
  }
});
