/** Private Postgres and Redis servers for the demo, the sample and the tests. They die with the process that started them. */
export { startPostgres } from './postgres/start-postgres.js';
export type { LocalPostgres } from './postgres/local-postgres.js';
export type { StartPostgresOptions } from './postgres/start-postgres.js';
export { isRedisInstalled, startRedis } from './redis/start-redis.js';
export type { LocalRedis, StartRedisOptions } from './redis/start-redis.js';
export { startRedisCluster } from './redis/start-redis-cluster.js';
export type { LocalRedisCluster } from './redis/start-redis-cluster.js';
export { freePort } from './process/free-port.js';
