/*
 * The prefix of BullMQ's keys. Whoever speaks to a queue has to have the same one.
 *
 * A Redis Cluster runs a script only on keys of one hash slot. BullMQ's scripts use many keys of a queue at once, and
 * those of two queues where a flow joins them. Of a key that has a part in braces, the hash tag, only that part counts for
 * the slot: there, the prefix has to have one.
 */
import { ConfigurationError } from '../operation/errors.js';

/** The prefix of BullMQ's keys on a Redis Cluster, for all queues that the application gives none. */
const CLUSTER_PREFIX = '{bull}';

/** BullMQ's own. */
export const DEFAULT_PREFIX = 'bull';

/** Where BullMQ keeps a queue: these options of its queues and workers. */
export interface QueueLocation {
  readonly connection?: unknown;
  readonly prefix?: string | undefined;
}

/**
 * The prefix of a queue's keys: the application's, or, where there is none and the connection is a Redis Cluster,
 * {@link CLUSTER_PREFIX}. Undefined means BullMQ's own.
 *
 * @throws ConfigurationError if the queue is on a Redis Cluster and its own prefix leaves its keys in several hash slots
 */
export function prefixOf(queue: string, location: QueueLocation): string | undefined {
  const { connection, prefix } = location;
  if (prefix === undefined && isCluster(connection) && !hasHashTag(queue, DEFAULT_PREFIX))
    return CLUSTER_PREFIX;
  assertOneSlot(queue, location);
  return prefix;
}

function assertOneSlot(queue: string, { connection, prefix = DEFAULT_PREFIX }: QueueLocation): void {
  if (!isCluster(connection) || hasHashTag(queue, prefix)) return;
  throw new ConfigurationError(
    `Queue "${queue}" is on a Redis Cluster, but its prefix "${prefix}" has no hash tag: its keys would lie in several hash slots, and Redis would refuse BullMQ's commands with CROSSSLOT. Put the prefix in braces, prefix: '{${prefix || DEFAULT_PREFIX}}', wherever it is given (BullModule.forRoot(), registerQueue(), --prefix), or leave it out everywhere: it is '${CLUSTER_PREFIX}' then.`,
  );
}

/**
 * @throws ConfigurationError if a worker looks for the jobs of its queue under another prefix than they are put under, or is
 *   on a Redis Cluster of its own where that prefix leaves its keys in several hash slots
 */
export function assertWorkerPrefix(worker: Located, queue: Located | undefined): void {
  const [here, there] = [worker, queue ?? worker].map(({ opts }) => opts.prefix ?? DEFAULT_PREFIX);
  if (here === there) return assertOneSlot(worker.name, worker.opts);
  throw new ConfigurationError(
    `The worker of queue "${worker.name}" has the prefix "${here}", but the queue has "${there}": the worker would never find a job. Leave prefix out of the worker options; it is the queue's then.`,
  );
}

/** A queue or a worker of BullMQ. */
interface Located {
  readonly name: string;
  readonly opts: QueueLocation;
}

/** As BullMQ tells a Cluster of ioredis from other clients. It may come from another copy of ioredis. */
function isCluster(connection: unknown): boolean {
  return (connection as { readonly isCluster?: unknown } | null | undefined)?.isCluster === true;
}

/** Redis takes what is between the first brace and the next closing one, unless that is nothing. A queue's name may have it. */
function hasHashTag(queue: string, prefix: string): boolean {
  return /^[^{]*\{[^}]+\}/.test(`${prefix}:${queue}:`);
}
