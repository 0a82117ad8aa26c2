import { createPostgresBackend, createRedisBackend, setDefaultBackendFactory } from 'bullmq';

/**
 * Lets every BullMQ class of this process, also those that @nestjs/bullmq makes, choose its backend by its connection:
 * a Postgres connection string, `{ connectionString }` or pg.Pool means Postgres, everything else Redis. BullMQ itself
 * has one default per process. Call it once, before queues are made; calling it again changes nothing.
 *
 * ```ts
 * selectBackendByConnection();
 * BullModule.forRoot({ connection: { connectionString: process.env.DATABASE_URL, migrate: true } });
 * ```
 */
export function selectBackendByConnection(): void {
  setDefaultBackendFactory(((name, options, factoryOptions) =>
    isPostgresConnection(options.connection)
      ? createPostgresBackend(name, options as never, factoryOptions)
      : createRedisBackend(name, options, factoryOptions)) as typeof createRedisBackend);
}

function isPostgresConnection(connection: unknown): boolean {
  if (typeof connection === 'string') return /^postgres(?:ql)?:\/\//.test(connection);
  if (connection === null || typeof connection !== 'object') return false;
  if ('connectionString' in connection) return true;
  // A pg.Pool, even one that another copy of pg made.
  return 'totalCount' in connection && 'idleCount' in connection && 'waitingCount' in connection;
}
