import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { freePort } from '../process/free-port.js';
import { isRedisInstalled, type LocalRedis, startRedis } from './start-redis.js';

/** A running private Redis Cluster. */
export interface LocalRedisCluster {
  /** Its servers, all of them masters: each has a third of the hash slots, and no replica. */
  readonly masters: readonly LocalRedis[];
  /** Stops all servers and removes their directories. */
  stop(): Promise<void>;
}

/** The hash slots of each master. */
const SLOTS = [
  [0, 5460],
  [5461, 10_922],
  [10_923, 16_383],
] as const;

/** After so long without an answer, the other masters take one for failed. Short, because tests wait for it. */
const NODE_TIMEOUT_MS = 1_000;
const JOIN_MS = 30_000;

/**
 * Starts a Redis Cluster of your own: three masters on free loopback ports, without replicas and without persistence. A
 * master that is killed and restarted keeps its slots and its place in the cluster, and has lost its data. The servers
 * end with this process, even if that is killed. Returns undefined when `redis-server` is not on the PATH.
 *
 * @throws Error when a server cannot be started, or when they do not form a cluster
 */
export async function startRedisCluster(): Promise<LocalRedisCluster | undefined> {
  if (!isRedisInstalled()) return undefined;
  const started = await Promise.allSettled(SLOTS.map(startMember));
  const members = started.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
  const stop = async (): Promise<void> => {
    await Promise.all(members.map(({ redis }) => redis.stop()));
  };
  try {
    const failed = started.find((one) => one.status === 'rejected');
    if (failed !== undefined) throw failed.reason;
    await join(members);
  } catch (error) {
    await stop();
    throw error;
  }
  return { masters: members.map(({ redis }) => redis), stop };
}

/** A server of the cluster, and the port on which the others talk to it. */
interface Member {
  readonly redis: LocalRedis;
  readonly busPort: number;
}

async function startMember(): Promise<Member> {
  // By default the bus is 10,000 ports above the other one, where clients of this machine have their outgoing ports.
  const busPort = await freePort();
  const flags = ['--cluster-enabled', 'yes', '--cluster-port', String(busPort)];
  const redis = await startRedis({
    flags: [...flags, '--cluster-node-timeout', String(NODE_TIMEOUT_MS)],
  });
  return { redis: redis as LocalRedis, busPort };
}

/** Gives each server its slots, and waits until all of them know of all. */
async function join(members: readonly Member[]): Promise<void> {
  const clients = members.map(({ redis }) => new Redis(redis.url));
  try {
    await Promise.all(
      clients.map(async (client, index) => {
        const [from, to] = SLOTS[index] as (typeof SLOTS)[number];
        await client.call('CLUSTER', 'ADDSLOTSRANGE', from, to);
        // Two servers with one epoch would first have to agree on another.
        await client.call('CLUSTER', 'SET-CONFIG-EPOCH', index + 1);
      }),
    );
    for (const { redis, busPort } of members.slice(1))
      await clients[0]?.call('CLUSTER', 'MEET', '127.0.0.1', redis.port, busPort);
    const giveUpAt = Date.now() + JOIN_MS;
    for (const client of clients) await joined(client, giveUpAt);
  } finally {
    for (const client of clients) client.disconnect();
  }
}

async function joined(client: Redis, giveUpAt: number): Promise<void> {
  for (;;) {
    const said = String(await client.call('CLUSTER', 'INFO'));
    if (said.includes('cluster_state:ok') && said.includes(`cluster_known_nodes:${SLOTS.length}`)) return;
    if (Date.now() > giveUpAt)
      throw new Error(`Redis servers did not form a cluster. One of them says:\n${said}`);
    await sleep(20);
  }
}
