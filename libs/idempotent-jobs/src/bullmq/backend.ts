import * as bullmq from 'bullmq';
import type { Queue } from 'bullmq';
import { ConfigurationError } from '../operation/errors.js';

/** What BullMQ has since its version 6. Before that, all queues are in Redis. */
const { createPostgresBackend, createRedisBackend, setDefaultBackendFactory } = bullmq as Partial<
  typeof bullmq
>;

/** @internal The backend of queues in Postgres. Undefined where BullMQ has none; its types have no such name there. */
export const { PostgresQueueBackend } = bullmq as Partial<typeof bullmq>;

/**
 * Lets every BullMQ class of this process, also those that @nestjs/bullmq makes, choose its backend by its connection:
 * a Postgres connection string, `{ connectionString }` or pg.Pool means Postgres, everything else Redis. BullMQ itself
 * has one default per process. Call it once, before queues are made; calling it again changes nothing. With BullMQ 5,
 * which knows only Redis, it does nothing, and a queue with a connection to Postgres is refused at boot.
 *
 * ```ts
 * selectBackendByConnection();
 * BullModule.forRoot({ connection: { connectionString: process.env.DATABASE_URL, migrate: true } });
 * ```
 */
export function selectBackendByConnection(): void {
  if (createRedisBackend === undefined) return;
  setDefaultBackendFactory?.(((name, options, factoryOptions) =>
    createPostgresBackend !== undefined && isPostgresConnection(options.connection)
      ? createPostgresBackend(name, options as never, factoryOptions)
      : createRedisBackend(name, options, factoryOptions)) as typeof createRedisBackend);
}

/**
 * @throws ConfigurationError if a queue is to be in Postgres, and BullMQ takes its connection for one to Redis; if it comes
 *   from another copy of BullMQ than the one that is imported here, whose errors and backends are other classes
 */
export function assertBackend(queue: Queue): void {
  const { name, opts } = queue;
  if (isOfAnotherCopy(queue))
    throw new ConfigurationError(
      `Queue "${name}" was made by another copy of BullMQ than the one that nestjs-idempotent-jobs gets, so neither would know the errors of the other. Have one version of bullmq installed: see \`npm ls bullmq\` or \`pnpm why -r bullmq\`.`,
    );
  if (PostgresQueueBackend !== undefined || !isPostgresConnection(opts.connection)) return;
  throw new ConfigurationError(
    `Queue "${name}" has a connection to Postgres, but this version of BullMQ keeps queues in Redis only. Give it a connection to Redis, or install bullmq@^6.7.`,
  );
}

/** Not so for an object of a test that only stands for a queue. */
function isOfAnotherCopy(queue: object): boolean {
  if (queue instanceof bullmq.Queue) return false;
  for (let prototype: unknown = queue; prototype != null; prototype = Object.getPrototypeOf(prototype))
    if (prototype.constructor?.name === bullmq.Queue.name) return true;
  return false;
}

/** @internal The client of a queue in Redis. */
export function redisClientOf(queue: Queue): ReturnType<Queue['getBackend']>['client'] {
  return 'getBackend' in queue ? queue.getBackend().client : (queue as QueueOfBullmq5).client;
}

/** BullMQ 5 has queues in Redis only, which need no backend between them and their client. */
interface QueueOfBullmq5 {
  readonly client: ReturnType<Queue['getBackend']>['client'];
}

function isPostgresConnection(connection: unknown): boolean {
  if (typeof connection === 'string') return /^postgres(?:ql)?:\/\//.test(connection);
  if (connection === null || typeof connection !== 'object') return false;
  if ('connectionString' in connection) return true;
  // A pg.Pool, even one that another copy of pg made.
  return 'totalCount' in connection && 'idleCount' in connection && 'waitingCount' in connection;
}
