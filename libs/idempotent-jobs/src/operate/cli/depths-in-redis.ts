import type { ConnectionOptions } from 'bullmq';
import { prefixOf } from '../../bullmq/queue-prefix.js';
import { QueueContents, type QueueDepth } from '../../bullmq/queue-contents.js';
import { ConfigurationError } from '../../operation/errors.js';
import { isOverWithin } from '../../operation/within.js';
import { Unavailable, WrongUsage } from './command.js';
import { reasonOf, serverUrl } from './connect.js';

const TIMEOUT_MS = 10_000;

/**
 * The depths of queues in the Redis of `REDIS_URL`. If that is one server of a Redis Cluster, the others are found through
 * it, and the queues have the prefix that the library gives them there.
 *
 * @throws WrongUsage for a URL of another kind, or a prefix that cannot be on a Cluster; Unavailable without an answer
 */
export async function depthsInRedis(
  names: readonly string[],
  redisUrl: string,
  prefix: string | undefined,
): Promise<ReadonlyMap<string, QueueDepth>> {
  const url = serverUrl('REDIS_URL', redisUrl, /^rediss?:$/, 'redis://user:password@host:6379');
  if (names.length === 0) return new Map();
  const redis = new RedisOfQueues(redisUrl, url);
  try {
    const connection = await redis.connection();
    const prefixes = new Map(names.map((name) => [name, prefixGiven(name, connection, prefix)]));
    return await redis.depths(connection, prefixes);
  } finally {
    await redis.close();
  }
}

function prefixGiven(queue: string, connection: unknown, prefix: string | undefined): string | undefined {
  try {
    return prefixOf(queue, { connection, prefix });
  } catch (error) {
    if (error instanceof ConfigurationError) throw new WrongUsage(error.message);
    throw error;
  }
}

/** A Redis that is asked once: when it cannot be reached, nothing is tried again. */
class RedisOfQueues {
  readonly #opened: (() => unknown)[] = [];
  #reason = `no answer within ${TIMEOUT_MS} ms`;

  constructor(
    private readonly text: string,
    private readonly url: URL,
  ) {}

  /** For queues of BullMQ: the options of one server, or a client of the whole Cluster. */
  async connection(): Promise<ConnectionOptions> {
    const options = { url: this.text, maxRetriesPerRequest: 1, retryStrategy: () => null };
    return (await this.#answer(this.#isOfCluster(options))) ? this.#cluster() : options;
  }

  depths(
    connection: ConnectionOptions,
    prefixes: ReadonlyMap<string, string | undefined>,
  ): Promise<ReadonlyMap<string, QueueDepth>> {
    const read = [...prefixes].map(
      async ([name, prefix]) => [name, await this.#depth(name, { connection, prefix })] as const,
    );
    return this.#answer(Promise.all(read).then((depths) => new Map(depths)));
  }

  async close(): Promise<void> {
    await isOverWithin(1000, Promise.allSettled(this.#opened.map((close) => close())));
  }

  async #isOfCluster(options: ConnectionOptions): Promise<boolean> {
    const { RedisConnection } = await import('bullmq');
    const connection = new RedisConnection(options, { blocking: false });
    this.#opened.push(() => connection.close());
    connection.on('error', this.#notice);
    const client = await connection.client;
    return /^cluster_enabled:1\r?$/m.test(await client.info());
  }

  async #cluster(): Promise<ConnectionOptions> {
    const { Cluster } = await import('ioredis');
    const { username, password, protocol } = this.url;
    const cluster = new Cluster([this.text], {
      clusterRetryStrategy: () => null,
      slotsRefreshTimeout: TIMEOUT_MS,
      // The host of REDIS_URL stays a name, because a certificate is for names.
      dnsLookup: (address, found) => found(null, address),
      redisOptions: {
        ...(username !== '' && { username: decodeURIComponent(username) }),
        ...(password !== '' && { password: decodeURIComponent(password) }),
        ...(protocol === 'rediss:' && { tls: {} }),
      },
    });
    cluster.on('error', this.#notice);
    this.#opened.push(() => cluster.disconnect());
    return cluster;
  }

  async #depth(
    name: string,
    { connection, prefix }: { connection: ConnectionOptions; prefix: string | undefined },
  ): Promise<QueueDepth> {
    // BullMQ 5 has no backends to choose from, and takes that for Redis.
    const { createRedisBackend, Queue } = await import('bullmq');
    const options = { connection, skipMetasUpdate: true, ...(prefix !== undefined && { prefix }) };
    const queue = new Queue(name, options, createRedisBackend);
    this.#opened.push(() => queue.close());
    queue.on('error', this.#notice);
    return new QueueContents(queue).depth();
  }

  /** @throws Unavailable if it fails, or does not come in time */
  async #answer<T>(asked: Promise<T>): Promise<T> {
    try {
      if (await isOverWithin(TIMEOUT_MS, asked)) return await asked;
    } catch (error) {
      this.#notice(error);
    }
    throw new Unavailable(`Redis at ${this.url.host} (REDIS_URL) cannot be reached: ${this.#reason}`);
  }

  readonly #notice = (error: unknown): void => {
    this.#reason = reasonOf(error);
  };
}
