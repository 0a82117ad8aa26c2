import type { BullRootModuleOptions } from '@nestjs/bullmq';
import type { Settings } from './settings.js';

/** On Postgres each queue and each worker has its own pool; a few connections are enough for one. */
const CONNECTIONS_PER_QUEUE = 4;

/** How BullMQ connects to its queues. The kind of connection selects the backend: see `selectBackendByConnection()`. */
export function queueConnection(settings: Settings): BullRootModuleOptions {
  if (settings.queueBackend === 'redis') {
    return { connection: { url: settings.redisUrl }, prefix: settings.queuePrefix };
  }
  // BullMQ's types know Postgres connections only when no Nest module is in between.
  const connection: object = {
    connectionString: settings.databaseUrl,
    migrate: true,
    max: CONNECTIONS_PER_QUEUE,
  };
  return { connection };
}
