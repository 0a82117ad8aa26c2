import { writeFileSync } from 'node:fs';
import { selectBackendByConnection } from 'nestjs-idempotent-jobs';
import { chartOf } from './chart.js';
import { HEADER, lineOf, type Measurement, summarize } from './comparison.js';
import { bullmqDurable, bullmqDurableStep } from './contenders/bullmq-durable.js';
import { dbos, dbosStep } from './contenders/dbos.js';
import { bundledFloor, bundledOptimisticFloor, floor, optimisticFloor } from './contenders/floor.js';
import { graphileWorker } from './contenders/graphile-worker.js';
import {
  bundled,
  bundledOptimistic,
  counted,
  dependent,
  enqueued,
  enqueuedInQueue,
  guardedCall,
  idempotent,
  measured,
  optimistic,
  replayed,
  transactional,
} from './contenders/library.js';
import { pgBoss } from './contenders/pg-boss.js';
import { addBulk, bareTransaction, bullmq, findThenSave } from './contenders/plain.js';
import type { Contender } from './contender.js';
import { type AskContender, measure, measureAllocations, type Place, type Turn } from './measure.js';
import { readOptions } from './options.js';
import { askAll } from './scale/ask.js';
import { Servers } from './servers.js';

/*
 * How fast the library works through a queue, next to plain BullMQ, to the usual "find, then save", and to the floors:
 * workers written by hand for this one handler. With `--metrics`, how much of the library's own speed is left when it is
 * counted; with `--policies`, when its calls are guarded by circuit, bulkhead and retry budget. With `--others`, what else it
 * does than run new operations: replays, transactions, enqueueing. With `--peers`, next to other systems that run jobs with a
 * durable result. With `--scale`, no contenders, but what happens with many rows, jobs, processes and connections: `scale/`.
 *
 * Contenders take turns in each round, so that a slow minute of the machine hits all of them, and each is compared with the
 * first one of its own round. Speed differs from machine to machine, and from minute to minute; CPU time per job hardly
 * does, and bytes and statements only as far as time decides which operations share one.
 */

const options = readOptions();
const OURS = [idempotent, bundled, optimistic, bundledOptimistic];
const FLOORS = [floor, optimisticFloor, bundledFloor, bundledOptimisticFloor];
const GROUPS = groups();
const ASK = whatToAsk();
/** So many calls that V8 has optimised the code before most of them. */
const WARM_CALLS = 200_000;
/** Enough for some ten thousand samples. */
const ALLOCATING_JOBS = 2000;
selectBackendByConnection();

const servers = await Servers.start();
try {
  const found = options.scale ? await askAll(servers, options) : await compareAll();
  if (options.json) console.log(JSON.stringify(found, undefined, 2));
} finally {
  await servers.stop();
}

async function compareAll(): Promise<Measurement[]> {
  console.error(`Node ${process.version}, ${options.rounds} rounds`);
  console.error(HEADER);
  const measurements: Measurement[] = [];
  for (const backend of servers.backends.filter((one) => one === (options.backend ?? one))) {
    for (const concurrency of options.concurrencies) {
      for (const contenders of GROUPS)
        measurements.push(
          ...(await compare(contenders, { servers, backend, concurrency, jobs: options.jobs[backend] })),
        );
    }
  }
  if (options.svg !== undefined) writeFileSync(options.svg, chartOf(measurements));
  return measurements;
}

/** Compares contenders with the first one of them. */
async function compare(contenders: readonly Contender[], place: Place): Promise<Measurement[]> {
  const here = contenders.filter(({ isOnRedisOnly }) => place.backend === 'redis' || !isOnRedisOnly);
  const turns = new Map<Contender, Turn[]>(here.map((contender) => [contender, []]));
  for (let round = 0; round < options.rounds; round += 1)
    for (const contender of here) turns.get(contender)?.push(await measure(contender, place, ASK));
  const base = turns.get(here[0] as Contender) as Turn[];
  const measurements: Measurement[] = [];
  for (const contender of here) {
    const { backend, concurrency } = place;
    const allocatedBytes = await measureAllocations(contender, { ...place, jobs: ALLOCATING_JOBS });
    const rounds = { turns: turns.get(contender) as Turn[], base, allocatedBytes };
    const measurement = summarize({ backend, concurrency, contender: contender.name }, rounds);
    measurements.push(measurement);
    const what = options.metrics ? 'to tell of a job' : 'to guard a call';
    const own = measurement.ownUs === undefined ? '' : `  ${measurement.ownUs.toFixed(2)} µs CPU ${what}`;
    console.error(lineOf(measurement) + own);
  }
  return measurements;
}

function whatToAsk(): AskContender {
  if (options.metrics) return (opened) => opened.tellUs?.(WARM_CALLS);
  return options.policies ? (opened) => opened.guardUs?.(WARM_CALLS) : () => undefined;
}

/** The contenders that were named, or all, each group with the first one, which the others are compared with. */
function groups(): readonly (readonly Contender[])[] {
  const { only } = options;
  if (only === undefined) return allGroups();
  const isNamed = ({ name }: Contender): boolean => only.includes(name);
  return allGroups()
    .filter((group) => group.some(isNamed))
    .map((group) => group.filter((one, index) => index === 0 || isNamed(one)));
}

function allGroups(): readonly (readonly Contender[])[] {
  if (options.metrics) return [[idempotent, counted, measured]];
  if (options.policies) return [[idempotent, dependent, guardedCall]];
  if (options.others)
    return [
      [bullmq, replayed],
      [bareTransaction, transactional],
      [addBulk, enqueued, enqueuedInQueue],
    ];
  const peers = [pgBoss, graphileWorker, dbos, dbosStep, bullmqDurable, bullmqDurableStep];
  return options.peers
    ? [[bullmq, idempotent, bundled, ...peers]]
    : [[bullmq, findThenSave, ...OURS, ...FLOORS]];
}
