import { median } from '../comparison.js';
import { processorTime } from '../processor-time.js';
import type { Servers } from '../servers.js';
import { alone, compared, type Figure, type Question } from './question.js';
import { openScaleApp } from './scale-app.js';
import { WorkerProcess } from './worker-process.js';

const COUNTS = [1, 2, 4] as const;
const ROUNDS = 2;
const CONCURRENCY = 50;

/** One and the same queue for several processes. The servers have to share the machine with them. */
export const processes: Question = {
  name: 'processes',
  asks: 'what do more worker processes bring?',
  sizes: { usual: 10_000, full: 50_000 },
  async answer(servers, size) {
    const figures: Figure[] = [];
    for (const handlerMs of [0, 50]) {
      // A handler that waits sets the pace by itself: fewer jobs last as long.
      const jobs = handlerMs === 0 ? size : Math.ceil(size / 2);
      const turns = new Map<number, Turn[]>(COUNTS.map((count) => [count, []]));
      for (let round = 0; round < ROUNDS; round += 1)
        for (const count of COUNTS)
          turns.get(count)?.push(await measure(servers, { count, jobs, handlerMs }));
      figures.push(...figuresOf(handlerMs, turns));
    }
    return figures;
  },
};

interface Turn {
  readonly jobsPerSecond: number;
  /** Of the worker processes, and of Postgres, in µs per job. */
  readonly nodeUs: number;
  readonly postgresUs: number | undefined;
}

async function measure(
  servers: Servers,
  { count, jobs, handlerMs }: { count: number; jobs: number; handlerMs: number },
): Promise<Turn> {
  const site = await servers.makeSite(servers.backends[0] as 'redis' | 'postgres');
  const producer = await openScaleApp(site, {});
  await producer.enqueue(
    Array.from({ length: jobs }, (_, number) => number),
    'queue',
  );
  const starting = Array.from({ length: count }, () =>
    WorkerProcess.start(site, { concurrency: CONCURRENCY, handlerMs }),
  );
  const workers = await Promise.all(starting);
  const warmUp = Math.floor(jobs / 5);
  for (const worker of workers) worker.run();
  await WorkerProcess.whenDone(workers, warmUp);
  const before = await readingOf(servers, workers);
  await WorkerProcess.whenDone(workers, jobs);
  const after = await readingOf(servers, workers);
  await Promise.all([...workers.map((worker) => worker.stop()), producer.app.close()]);
  const measured = after.done - before.done;
  const postgresUs =
    before.postgres === undefined || after.postgres === undefined
      ? undefined
      : (after.postgres - before.postgres) / measured;
  return {
    jobsPerSecond: (measured * 1000) / (after.at - before.at),
    nodeUs: (after.nodeUs - before.nodeUs) / measured,
    postgresUs,
  };
}

async function readingOf(
  servers: Servers,
  workers: readonly WorkerProcess[],
): Promise<{ at: number; done: number; nodeUs: number; postgres: number | undefined }> {
  const at = performance.now();
  const done = workers.reduce((sum, worker) => sum + worker.done, 0);
  const { postgres } = processorTime(servers.pids);
  const usages = await Promise.all(workers.map((worker) => worker.usage()));
  return { at, done, nodeUs: usages.reduce((sum, { cpuUs }) => sum + cpuUs, 0), postgres };
}

function figuresOf(handlerMs: number, turns: ReadonlyMap<number, readonly Turn[]>): Figure[] {
  const speed = (count: number): number =>
    median((turns.get(count) ?? []).map(({ jobsPerSecond }) => jobsPerSecond));
  const least = (count: number, name: 'nodeUs' | 'postgresUs'): number =>
    Math.min(...(turns.get(count) ?? []).map((turn) => turn[name] ?? NaN));
  const handler = handlerMs === 0 ? 'a handler that only returns' : `a handler that waits ${handlerMs} ms`;
  return COUNTS.flatMap((count) => {
    const named = `${handler}, ${count} ${count === 1 ? 'process' : 'processes'}`;
    if (count === 1) return [alone(named, 'jobs/s', speed(1))];
    return [
      compared(named, 'jobs/s', speed(count), speed(1), 'one process'),
      compared(
        `… Node's CPU, all processes`,
        'µs/job',
        least(count, 'nodeUs'),
        least(1, 'nodeUs'),
        'one process',
      ),
      compared(
        `… Postgres's CPU`,
        'µs/job',
        least(count, 'postgresUs'),
        least(1, 'postgresUs'),
        'one process',
      ),
    ];
  });
}
