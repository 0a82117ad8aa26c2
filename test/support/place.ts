/** Where BullMQ keeps its queues. */
export type Backend = 'redis' | 'postgres';

/** A database and a queue namespace that nothing else uses. Plain data, so that it can be handed to a child process. */
export interface Place {
  readonly backend: Backend;
  readonly databaseUrl: string;
  readonly connection: object;
  readonly prefix: string;
}

/** The databases that those of the places are copied from. */
export const TEMPLATES: Readonly<Record<Backend, string>> = {
  redis: 'template_redis',
  postgres: 'template_postgres',
};

/** The place in a database of that server. */
export function placeIn(
  database: string,
  backend: Backend,
  postgresUrl: string,
  redisUrl: string | undefined,
): Place {
  const url = new URL(postgresUrl);
  url.pathname = `/${database}`;
  const databaseUrl = url.toString();
  const connection =
    backend === 'postgres' ? { connectionString: databaseUrl, migrate: true, max: 4 } : { url: redisUrl };
  return { backend, databaseUrl, connection, prefix: database };
}
