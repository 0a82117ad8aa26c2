import { Cluster } from 'ioredis';
import { type LocalRedisCluster, startRedisCluster } from 'local-servers';
import type { Place } from './place.js';
import { makePlace } from './scenario.js';

/** A Redis Cluster that the caller may break and must stop. */
export async function startOwnRedisCluster(): Promise<LocalRedisCluster> {
  const cluster = await startRedisCluster();
  if (cluster === undefined) throw new Error('There is no redis-server on the PATH; see HAS_OWN_REDIS');
  return cluster;
}

/** A client of all its masters, which the caller must disconnect. */
export class ClusterClient extends Cluster {
  readonly #copies: Cluster[] = [];

  constructor({ masters }: LocalRedisCluster) {
    super(masters.map(({ port }) => ({ host: '127.0.0.1', port })));
  }

  /** Workers have copies of their own. */
  override duplicate(...given: Parameters<Cluster['duplicate']>): Cluster {
    const copy = super.duplicate(...given);
    this.#copies.push(copy);
    return copy;
  }

  /** Disconnects the copies, too: nobody closes the workers of an application that was refused at boot. */
  disconnectAll(): void {
    for (const client of [this, ...this.#copies]) client.disconnect();
  }
}

/** A fresh place whose queues are on that cluster, under the prefix that the library gives them. */
export async function placeOnCluster(client: Cluster): Promise<Place> {
  return { ...(await makePlace('redis')), connection: client, prefix: '' };
}
