import * as bullmq from 'bullmq';

/** Where BullMQ keeps its queues. */
export type Backend = 'redis' | 'postgres';

/** Those of the installed BullMQ: version 5 has only Redis. */
export const BACKENDS_OF_BULLMQ: readonly Backend[] =
  'PostgresQueueBackend' in bullmq ? ['redis', 'postgres'] : ['redis'];

/** A database and a queue namespace that nothing else uses. Plain data, so that it can be handed to a child process. */
export interface Place {
  readonly backend: Backend;
  readonly databaseUrl: string;
  readonly connection: object;
  /** Empty where the library chooses it. */
  readonly prefix: string;
}

/** The databases that those of the places are copied from. */
export const TEMPLATES: Readonly<Record<Backend, string>> = {
  redis: 'template_redis',
  postgres: 'template_postgres',
};

/** Where the servers of the tests are. */
export interface Servers {
  readonly postgresUrl: string;
  readonly redisUrl: string | undefined;
}

/**
 * The place in a database of that server. With `isEmpty` each of BullMQ's queues and workers looks whether their schema is
 * there, and makes it.
 */
export function placeIn(
  { postgresUrl, redisUrl }: Servers,
  backend: Backend,
  database: string,
  isEmpty = false,
): Place {
  const url = new URL(postgresUrl);
  url.pathname = `/${database}`;
  const databaseUrl = url.toString();
  const connection =
    backend === 'postgres' ? { connectionString: databaseUrl, migrate: isEmpty, max: 2 } : { url: redisUrl };
  return { backend, databaseUrl, connection, prefix: database };
}
