import { Client } from 'pg';
import { setTimeout } from 'node:timers/promises';
import { median } from '../comparison.js';
import type { Site } from '../contender.js';
import { untilNoRow } from '../contenders/until-no-row.js';
import { processorTime } from '../processor-time.js';
import type { Servers } from '../servers.js';
import { alone, compared, type Figure, type Question } from './question.js';
import { openScaleApp, type ScaleApp } from './scale-app.js';
import { WorkerProcess } from './worker-process.js';

const MEGABYTE = 1024 * 1024;

/** Operations that wait in the ledger when a dispatcher starts, as after an outage of Redis, next to a tenth of them. */
export const backlog: Question = {
  name: 'backlog',
  asks: 'how long does it take to dispatch a backlog, and what does the dispatcher need?',
  sizes: { usual: 200_000, full: 1_000_000 },
  async answer(servers, size) {
    const figures: Figure[] = [];
    for (const bundle of [undefined, 50]) {
      const tenth = await measure(servers, Math.ceil(size / 10), bundle);
      const whole = await measure(servers, size, bundle);
      const named = bundle === undefined ? 'one job each' : `bundles of ${bundle}`;
      figures.push(
        alone(`${named}: until all are on the queue`, 's', whole.seconds),
        compared(
          `${named}: operations per second`,
          'op/s',
          whole.perSecond,
          tenth.perSecond,
          'a tenth of them',
        ),
        compared(`${named}: dispatcher's CPU`, 'µs/op', whole.nodeUs, tenth.nodeUs, 'a tenth of them'),
        compared(`${named}: Postgres's CPU`, 'µs/op', whole.postgresUs, tenth.postgresUs, 'a tenth of them'),
        compared(
          `${named}: dispatcher's highest RSS`,
          'MB',
          whole.rssBytes / MEGABYTE,
          tenth.rssBytes / MEGABYTE,
          'a tenth of them',
        ),
        compared(
          `${named}: a look that finds nothing due`,
          'ms',
          whole.idleLookMs,
          tenth.idleLookMs,
          'a tenth of them',
        ),
      );
    }
    return figures;
  },
};

interface Dispatched {
  readonly seconds: number;
  readonly perSecond: number;
  readonly nodeUs: number;
  readonly postgresUs: number;
  readonly rssBytes: number;
  readonly idleLookMs: number;
}

async function measure(
  servers: Servers,
  operations: number,
  bundle: number | undefined,
): Promise<Dispatched> {
  const site = await servers.makeSite(servers.backends[0] as 'redis' | 'postgres');
  const shape = bundle === undefined ? {} : { bundle };
  const producer = await openScaleApp(site, shape);
  for (let first = 0; first < operations; first += PORTION)
    await producer.enqueue(
      Array.from({ length: Math.min(PORTION, operations - first) }, (_, index) => first + index),
      'ledger',
    );
  const dispatcher = await WorkerProcess.start(site, { ...shape, dispatches: true });
  // What it dispatched while it started is left out, like its start.
  const waiting = await countWaiting(producer);
  const startedAt = performance.now();
  const before = {
    node: (await dispatcher.usage()).cpuUs,
    postgres: processorTime(servers.pids).postgres ?? NaN,
  };
  await untilNoRow(site.databaseUrl, 'job_outcomes WHERE dispatches = 0', 100);
  const seconds = (performance.now() - startedAt) / 1000;
  const postgresUs = ((processorTime(servers.pids).postgres ?? NaN) - before.postgres) / waiting;
  const { cpuUs, maxRssBytes } = await dispatcher.usage();
  await dispatcher.stop();
  const idleLookMs = await idleLook(site, producer);
  await producer.app.close();
  return {
    seconds,
    perSecond: waiting / seconds,
    nodeUs: (cpuUs - before.node) / waiting,
    postgresUs,
    rssBytes: maxRssBytes,
    idleLookMs,
  };
}

/** How long a look of a dispatcher takes, in ms, where all operations are to be looked at tomorrow. */
async function idleLook(site: Site, { dataSource }: ScaleApp): Promise<number> {
  await dataSource.query(`UPDATE job_outcomes SET dispatch_due_at = now() + interval '1 day'`);
  await dataSource.query('VACUUM (ANALYZE) job_outcomes');
  const looks: number[] = [];
  const query = Reflect.get(Client.prototype, 'query') as (...args: unknown[]) => Promise<unknown>;
  Client.prototype.query = async function (this: Client, ...args: unknown[]) {
    const startedAt = performance.now();
    const result = await query.apply(this, args);
    const { text = '' } = args[0] as { text?: string };
    if (text.startsWith('WITH due AS') && text.includes('job_outcomes'))
      looks.push(performance.now() - startedAt);
    return result;
  } as Client['query'];
  const dispatcher = await openScaleApp(site, { dispatches: true });
  await setTimeout(LOOKS * 1000);
  Client.prototype.query = query as Client['query'];
  await dispatcher.app.close();
  return median(looks);
}

async function countWaiting({ dataSource }: ScaleApp): Promise<number> {
  const [row] = await dataSource.query<{ waiting: number }[]>(
    'SELECT count(*)::integer AS waiting FROM job_outcomes WHERE dispatches = 0',
  );
  return row?.waiting ?? NaN;
}

/** A dispatcher that is not woken looks once in a second. */
const LOOKS = 10;

/** Operations that are asked for in one go. */
const PORTION = 20_000;
