import type { BullRootModuleOptions } from '@nestjs/bullmq';
import type { Settings } from './settings.js';

/** On Postgres each queue and each worker has a pool of its own; a few connections are plenty for one. */
const CONNECTIONS_PER_QUEUE = 4;

/** How BullMQ reaches its queues. The kind of connection decides about the backend: see `selectBackendByConnection()`. */
export function queueConnection(settings: Settings): BullRootModuleOptions {
  if (settings.queueBackend === 'redis') {
    return { connection: { url: settings.redisUrl }, prefix: settings.queuePrefix };
  }
  // BullMQ's types know Postgres connections only where no Nest module is in between.
  const connection: object = {
    connectionString: settings.databaseUrl,
    migrate: true,
    max: CONNECTIONS_PER_QUEUE,
  };
  return { connection };
}
