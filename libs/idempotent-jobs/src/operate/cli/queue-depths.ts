import { QueueContents, type QueueDepth } from '../../bullmq/queue-contents.js';
import { isOverWithin } from '../../operation/within.js';
import type { Database } from '../../ledger/postgres/database.js';
import { Unavailable } from './command.js';
import { reasonOf, serverUrl } from './connect.js';

/** The depths of queues by name, and the backend that reported them. */
export interface QueueDepths {
  readonly source: 'redis' | 'postgres' | 'none';
  readonly of: ReadonlyMap<string, QueueDepth>;
}

const TIMEOUT_MS = 10_000;
/** The default table of BullMQ's Postgres backend. */
const BULLMQ_TABLE = 'bullmq.job';

/** Asks the Redis of `REDIS_URL`, else BullMQ's Postgres backend in the ledger's database, else no backend. */
export async function queueDepths(
  names: readonly string[],
  redisUrl: string | undefined,
  prefix: string | undefined,
  database: Database,
): Promise<QueueDepths> {
  return redisUrl === undefined ? depthsInPostgres(names, database) : depthsInRedis(names, redisUrl, prefix);
}

async function depthsInRedis(
  names: readonly string[],
  redisUrl: string,
  prefix: string | undefined,
): Promise<QueueDepths> {
  const { host } = serverUrl('REDIS_URL', redisUrl, /^rediss?:$/, 'redis://user:password@host:6379');
  const { createRedisBackend, Queue } = await import('bullmq');
  // Fails once when Redis cannot be reached, instead of trying without end.
  const connection = { url: redisUrl, maxRetriesPerRequest: 1, retryStrategy: () => null };
  const queues = names.map(
    (name) =>
      new Queue(
        name,
        { connection, skipMetasUpdate: true, ...(prefix !== undefined && { prefix }) },
        createRedisBackend,
      ),
  );
  let reason = `no answer within ${TIMEOUT_MS} ms`;
  for (const queue of queues) queue.on('error', (error) => (reason = reasonOf(error)));
  const depths = new Map<string, QueueDepth>();
  try {
    const asked = queues.map(async (queue) => depths.set(queue.name, await new QueueContents(queue).depth()));
    const failed = Promise.all(asked).catch((error: unknown) => (reason = reasonOf(error)));
    await isOverWithin(TIMEOUT_MS, failed);
    if (depths.size < names.length)
      throw new Unavailable(`Redis at ${host} (REDIS_URL) cannot be reached: ${reason}`);
    return { source: 'redis', of: depths };
  } finally {
    await isOverWithin(1000, Promise.allSettled(queues.map((queue) => queue.close())));
  }
}

async function depthsInPostgres(names: readonly string[], { dataSource }: Database): Promise<QueueDepths> {
  const [found] = await dataSource.query<[{ present: boolean }]>(
    'SELECT to_regclass($1) IS NOT NULL AS present',
    [BULLMQ_TABLE],
  );
  if (!found.present) return { source: 'none', of: new Map() };
  const rows = await dataSource.query<(QueueDepth & { queue: string })[]>(
    `SELECT asked.queue,
       count(*) FILTER (WHERE state = 'waiting')::integer AS waiting,
       count(*) FILTER (WHERE state = 'active')::integer AS active,
       count(*) FILTER (WHERE state = 'delayed')::integer AS delayed,
       count(*) FILTER (WHERE state = 'failed')::integer AS failed
     FROM unnest($1::text[]) AS asked (queue)
     LEFT JOIN ${BULLMQ_TABLE} j ON j.queue = asked.queue AND state IN ('waiting', 'active', 'delayed', 'failed')
     GROUP BY asked.queue`,
    [names],
  );
  return {
    source: 'postgres',
    of: new Map(
      rows.map(({ queue, waiting, active, delayed, failed }) => [
        queue,
        { waiting, active, delayed, failed },
      ]),
    ),
  };
}
