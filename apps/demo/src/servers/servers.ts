/** The servers that all variants share: a Postgres of our own, and a Redis where the queues are to be kept in one. */
import { Redis } from 'ioredis';
import { type LocalPostgres, startPostgres, startRedis } from 'local-servers';
import { migrate, type QueueBackend, stockUp, TABLES, variable } from 'payments';
import { DataSource } from 'typeorm';
import { type DemoOptions, UsageError } from '../options.js';
import { PRODUCTS, TENANTS } from '../stream/order-stream.js';
import type { UndoList } from './undo-list.js';

export interface Servers {
  readonly postgres: LocalPostgres;
  readonly backend: QueueBackend;
  readonly redisUrl: string | undefined;
}

/** @throws UsageError when Redis is wanted and there is none */
export async function startServers({ backend, loseRedis }: DemoOptions, undo: UndoList): Promise<Servers> {
  const redisUrl = backend === 'redis' ? await redisFor(loseRedis, undo) : undefined;
  const postgres = await undo.keep(startPostgres(), (server) => server.stop());
  return { postgres, backend, redisUrl };
}

/** Where everything is going to be lost, it must be nobody else's. */
async function redisFor(isToBeLost: boolean, undo: UndoList): Promise<string> {
  const given = variable('REDIS_URL');
  if (given !== undefined && !isToBeLost) {
    await ping(given);
    return given;
  }
  const own = await undo.keep(startRedis(), async (server) => server?.stop());
  if (own === undefined) {
    throw new UsageError(
      isToBeLost
        ? '--lose-redis flushes a Redis of its own, never the one at REDIS_URL, and there is no redis-server on the PATH.'
        : 'There is no Redis: set REDIS_URL, put redis-server on the PATH, or leave --backend out, which needs neither.',
    );
  }
  return own.url;
}

async function ping(url: string): Promise<void> {
  const client = new Redis(url, { lazyConnect: true, maxRetriesPerRequest: 0, retryStrategy: () => null });
  let reason = 'no answer';
  client.on('error', (error) => (reason = error.message));
  try {
    await client.connect();
    await client.ping();
  } catch (cause) {
    throw new UsageError(`REDIS_URL is set, but no Redis answers there: ${reason}`, { cause });
  } finally {
    client.disconnect();
  }
}

/** A place of its own for one variant: a database with stocked shelves, and a prefix for its queues. */
export async function makePlace(servers: Servers, name: string, undo: UndoList): Promise<NodeJS.ProcessEnv> {
  // Nothing to undo, as the server's databases go with it; but it must not go in the middle of this.
  const databaseUrl = await undo.keep(makeDatabase(servers.postgres, name), async () => undefined);
  const prefix = `demo-${process.pid}-${name}`;
  const { backend, redisUrl } = servers;
  if (redisUrl !== undefined) undo.add(() => clearRedis(redisUrl, prefix));
  return {
    DATABASE_URL: databaseUrl,
    QUEUE_BACKEND: backend,
    QUEUE_PREFIX: prefix,
    REDIS_URL: redisUrl ?? '',
  };
}

async function makeDatabase(postgres: LocalPostgres, name: string): Promise<string> {
  const url = await postgres.createDatabase(name);
  await migrate(url);
  const shelves = await new DataSource({ type: 'postgres', url, entities: TABLES }).initialize();
  for (const tenant of TENANTS) await stockUp(shelves.manager, tenant, PRODUCTS);
  await shelves.destroy();
  return url;
}

/** The Redis may be somebody else's: only what is ours goes, and all of it. */
async function clearRedis(url: string, prefix: string): Promise<void> {
  const client = new Redis(url, { maxRetriesPerRequest: 1 });
  client.on('error', () => undefined);
  try {
    for await (const keys of client.scanStream({ match: `${prefix}:*`, count: 500 }) as AsyncIterable<
      string[]
    >)
      if (keys.length > 0) await client.unlink(keys);
  } finally {
    client.disconnect();
  }
}
