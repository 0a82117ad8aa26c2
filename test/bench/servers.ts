import { randomUUID } from 'node:crypto';
import { Redis } from 'ioredis';
import { startPostgres, startRedis } from 'local-servers';
import type { Site } from './contender.js';
import type { ServerPids } from './processor-time.js';

export type Backend = 'redis' | 'postgres';

/** The private servers of a run, with the durability that an application would have. */
export class Servers {
  private constructor(
    private readonly postgres: Awaited<ReturnType<typeof startPostgres>>,
    private readonly ownRedis: Awaited<ReturnType<typeof startRedis>>,
    /** Asks Redis about itself. Undefined where there is none. */
    readonly redis: Redis | undefined,
    private readonly redisUrl: string | undefined,
  ) {}

  static async start(): Promise<Servers> {
    const postgres = await startPostgres({ durable: true });
    const givenUrl = process.env['REDIS_URL'] || undefined;
    const ownRedis = givenUrl === undefined ? await startRedis() : undefined;
    const redisUrl = givenUrl ?? ownRedis?.url;
    if (redisUrl === undefined)
      console.error('Redis is skipped: no redis-server on the PATH, and REDIS_URL is not set.');
    return new Servers(
      postgres,
      ownRedis,
      redisUrl === undefined ? undefined : new Redis(redisUrl),
      redisUrl,
    );
  }

  get backends(): readonly Backend[] {
    return this.redis === undefined ? ['postgres'] : ['redis', 'postgres'];
  }

  get pids(): ServerPids {
    return { postgres: this.postgres.pid, redis: this.ownRedis?.pid };
  }

  async makeSite(backend: Backend): Promise<Site> {
    const name = `bench_${randomUUID().replaceAll('-', '')}`;
    const databaseUrl = await this.postgres.createDatabase(name);
    const connection =
      backend === 'postgres' ? { connectionString: databaseUrl, migrate: true } : { url: this.redisUrl };
    return { databaseUrl, connection: connection as Site['connection'], prefix: name };
  }

  async stop(): Promise<void> {
    this.redis?.disconnect();
    await this.ownRedis?.stop();
    await this.postgres.stop();
  }
}
