/**
 * Redis loses everything in the middle of a run, provably: some of the orders are charged by then, others are jobs on its
 * queues, and those are counted right before.
 */
import { Queue } from 'bullmq';
import { Redis } from 'ioredis';
import { queueConnection, type Settings } from 'payments';
import type { SimulatorClient } from 'simulator';
import { until } from './until.js';

/** What happened, for the report. */
export interface Flush {
  /** Of the run, counted like its length. */
  readonly second: number;
  /** On the queues, waiting, running or to be retried, when they were lost. */
  readonly jobs: number;
}

/** What makes a moment the right one. */
export interface FlushPlan {
  readonly queues: readonly string[];
  /** After so many charges. */
  readonly charges: number;
  /** And after the first charge of this order, whose worker is to be killed: without its job that could not happen. */
  readonly orderId: string;
}

const UNFINISHED = ['waiting', 'active', 'delayed', 'prioritized'] as const;

/** Waits for the moment and flushes the Redis that the settings name: all of it. */
export async function flush(
  simulator: SimulatorClient,
  settings: Settings,
  plan: FlushPlan,
  startedAt: number,
  deadline: number,
): Promise<Flush> {
  await until(`${plan.charges} orders are charged`, deadline, 20, async () => {
    const charges = (await simulator.ledger()).filter(({ service }) => service === 'charge');
    return charges.length >= plan.charges && charges.some(({ subject }) => subject === plan.orderId);
  });
  const jobs = await unfinishedJobs(settings, plan.queues);
  const client = new Redis(settings.redisUrl ?? '');
  await client.flushall();
  const second = Math.round((performance.now() - startedAt) / 100) / 10;
  client.disconnect();
  return { second, jobs };
}

async function unfinishedJobs(settings: Settings, names: readonly string[]): Promise<number> {
  let jobs = 0;
  for (const name of names) {
    const queue = new Queue(name, queueConnection(settings));
    const counts = await queue.getJobCounts(...UNFINISHED);
    jobs += Object.values(counts).reduce((sum, count) => sum + count, 0);
    await queue.close();
  }
  return jobs;
}

/** `Redis was flushed after 4.2 s, with 120 jobs` */
export function describeFlush({ second, jobs }: Flush): string {
  return `Redis was flushed after ${second.toFixed(1)} s, with ${jobs} jobs on its queues`;
}
