import { type DurableContext, DurableQueue, DurableWorker } from 'bullmq-durable';
import {
  chunks,
  type Contender,
  handle,
  type OpenContender,
  payloadOf,
  QUEUE,
  type Site,
} from '../contender.js';

/*
 * bullmq-durable 0.2.0. It asks for BullMQ 5, and runs here on the BullMQ 6 that everything else runs on (an override in
 * package.json). It keeps its state in Redis, so it takes no part where BullMQ keeps its queues in Postgres.
 *
 * What its result is worth, read in `dist/index.js` of the installed package and in its README:
 *
 * - A result is stored per run, and of each step, in a hash in Redis, which lives as long as BullMQ's job: so the job must be
 *   kept (`removeOnComplete: { age }`), and the record is as durable as Redis. This one keeps nothing on disk.
 * - A retry after a crash is fenced in part: the outcome of a run is written only by who holds the run's lock
 *   (`TERMINAL_SCRIPT`), but a lock that has run out fences nothing, and steps are recorded without asking for it.
 * - A job can run twice: a step that was not recorded runs again, and a worker whose lock (30 s) ran out runs on beside the
 *   one that replaced it.
 * - Isolation: each write is one script or command of Redis, which are serial; there is no transaction with your data.
 */

/** The run is the handler: what is recorded is a claim and an outcome, as by this library. */
export const bullmqDurable: Contender = {
  name: 'bullmqDurable',
  isOnRedisOnly: true,
  open: (site, concurrency) => openDurable(site, concurrency, handle),
};

/** The handler is a step of the run, as its README asks for whatever has an effect: a record more. */
export const bullmqDurableStep: Contender = {
  name: 'bullmqDurableStep',
  isOnRedisOnly: true,
  open: (site, concurrency) => openDurable(site, concurrency, (context) => context.step('charge', handle)),
};

async function openDurable(
  { connection: given, prefix }: Site,
  concurrency: number,
  work: (context: DurableContext) => Promise<unknown>,
): Promise<OpenContender> {
  const connection = addressOf(given as { url: string });
  const shared = { connection, prefix, durablePrefix: `${prefix}:durable` };
  const defaultJobOptions = { attempts: 3, removeOnComplete: { age: 7 * 24 * 3600 } };
  const queue = new DurableQueue(QUEUE, { ...shared, defaultJobOptions });
  let stop = (): Promise<void> => Promise.resolve();
  return {
    async fill(jobs) {
      for (const chunk of chunks(jobs))
        await queue.bullmq.addBulk(
          chunk.map((number) => ({
            name: 'charge',
            data: payloadOf(number),
            opts: { jobId: `charge-${number}` },
          })),
        );
    },
    drain(countdown) {
      const worker = new DurableWorker(QUEUE, (_job, context) => work(context), { ...shared, concurrency });
      stop = () => worker.close();
      worker.on('completed', () => countdown.count());
      worker.on('failed', (_job, error) => countdown.fail(error));
      return countdown.over;
    },
    async close() {
      await stop();
      await queue.close();
    },
  };
}

/** It hands the connection to ioredis, which knows no `url` there and would take whatever Redis is on the default port. */
function addressOf({ url }: { url: string }): {
  host: string;
  port: number;
  username: string;
  password: string;
} {
  const { hostname, port, username, password } = new URL(url);
  return { host: hostname, port: Number(port || 6379), username, password };
}
