import { selectBackendByConnection } from 'nestjs-idempotent-jobs';
import { bundled, idempotent, optimistic } from './contenders/library.js';
import { bullmq } from './contenders/plain.js';
import type { Contender } from './contender.js';
import { measure, measureAllocations, type Place } from './measure.js';
import { type Backend, Servers } from './servers.js';

/*
 * Fails when working off an operation costs much more than it did: statements, bytes, Redis commands and allocated bytes.
 * Nothing here measures time; but counts depend a little on it, since time decides which operations share a statement, hence
 * the room. What it costs to put the operation on its queue is not measured.
 */

/** What an operation may cost at most. */
interface Limits {
  readonly contender: Contender;
  readonly concurrency: number;
  readonly jobs: number;
  /** Sent to Postgres by this process, each of them one round trip; beyond those of plain BullMQ. */
  readonly statements: number;
  /** To Postgres and back, beyond those of plain BullMQ. */
  readonly postgresBytes: number;
  /** Beyond those of plain BullMQ. Negative where the contender has to save some. */
  readonly redisCommands: number;
  readonly allocatedBytes: number;
}

// Before each line: what was measured on a machine with two cores, in the same order.
// prettier-ignore
const LIMITS: Readonly<Record<Backend, readonly Limits[]>> = {
  redis: [
    // 2.0, 1,930, 0, 117,000. One by one nothing is shared: there are two statements, a claim and a record.
    { contender: idempotent, concurrency: 1, jobs: 500, statements: 2.6, postgresBytes: 2600, redisCommands: 0.5, allocatedBytes: 150_000 },
    // 0.05, 334, 0, 49,500
    { contender: idempotent, concurrency: 100, jobs: 4000, statements: 0.5, postgresBytes: 600, redisCommands: 0.5, allocatedBytes: 65_000 },
    // 0.06, 370, 0, 53,000
    { contender: optimistic, concurrency: 100, jobs: 4000, statements: 0.5, postgresBytes: 600, redisCommands: 0.5, allocatedBytes: 70_000 },
    // 0.04, 301, −22.7, 23,100. A bundle has to save at least 15 of plain BullMQ's commands.
    { contender: bundled, concurrency: 100, jobs: 4000, statements: 0.5, postgresBytes: 600, redisCommands: -15, allocatedBytes: 35_000 },
  ],
  postgres: [
    // −1.1, −1,650, 0, 23,800
    { contender: bundled, concurrency: 50, jobs: 500, statements: 0, postgresBytes: 0, redisCommands: 0.5, allocatedBytes: 50_000 },
  ],
};

selectBackendByConnection();
const servers = await Servers.start();
try {
  for (const backend of servers.backends)
    for (const limits of LIMITS[backend]) if (await exceeds(backend, limits)) process.exitCode = 1;
} finally {
  await servers.stop();
}

async function exceeds(backend: Backend, limits: Limits): Promise<boolean> {
  const { contender, concurrency, jobs } = limits;
  const place: Place = { servers, backend, concurrency, jobs };
  const { traffic: plain } = await measure(bullmq, place);
  const { traffic } = await measure(contender, place);
  const costs = {
    statements: traffic.statements - plain.statements,
    postgresBytes: traffic.postgresBytes - plain.postgresBytes,
    redisCommands: traffic.redisCommands - plain.redisCommands,
    allocatedBytes: await measureAllocations(contender, place),
  };
  console.log(`${backend}, concurrency ${concurrency}, ${contender.name}, per operation:`);
  const names = Object.keys(costs) as (keyof typeof costs)[];
  for (const name of names) {
    const isOver = costs[name] > limits[name];
    console.log(`  ${name} ${round(costs[name])}, at most ${limits[name]}${isOver ? ': TOO MANY' : ''}`);
  }
  return names.some((name) => costs[name] > limits[name]);
}

function round(value: number): number {
  return Number(value.toPrecision(3));
}
