import { allocatedBytes } from './allocations.js';
import { type Contender, Countdown, type OpenContender } from './contender.js';
import { perJob, type ProcessorTime, processorTime } from './processor-time.js';
import type { Backend, Servers } from './servers.js';
import { type Traffic, TrafficMeter, trafficPerJob } from './traffic.js';

/** What one turn of a contender has shown. */
export interface Turn {
  readonly jobsPerSecond: number;
  /** In µs per job, without the jobs that warm everything up. */
  readonly cpu: ProcessorTime;
  readonly traffic: Traffic;
  /** What {@link OpenContender} says of its own cost, in µs. */
  readonly ownUs: number | undefined;
}

/** What to ask a contender about after its turn. */
export type AskContender = (opened: OpenContender) => number | undefined | Promise<number | undefined>;

/** Lets a contender work off so many jobs, in a place of its own. */
export async function measure(
  contender: Contender,
  { servers, backend, concurrency, jobs }: Place,
  ask: AskContender = () => undefined,
): Promise<Turn> {
  const traffic = new TrafficMeter(servers.redis);
  return whileOpen(contender, { servers, backend, concurrency, jobs }, async (opened) => {
    const warmUp = Math.floor(jobs / 10);
    let startedAt = performance.now();
    let before = processorTime(servers.pids);
    const countdown = new Countdown(jobs, warmUp, () => {
      before = processorTime(servers.pids);
      startedAt = performance.now();
    });
    const said = await traffic.read();
    await opened.drain(countdown);
    const elapsedMs = performance.now() - startedAt;
    const cpu = perJob(before, processorTime(servers.pids), jobs - warmUp);
    return {
      jobsPerSecond: ((jobs - warmUp) * 1000) / elapsedMs,
      cpu,
      traffic: trafficPerJob(said, await traffic.read(), jobs),
      ownUs: await ask(opened),
    };
  });
}

/** How many bytes each job allocates in this process. The jobs run slower meanwhile, so nothing else is measured. */
export async function measureAllocations(contender: Contender, place: Place): Promise<number> {
  return whileOpen(contender, place, async (opened) => {
    const countdown = new Countdown(place.jobs, 0, () => undefined);
    return (await allocatedBytes(() => opened.drain(countdown))) / place.jobs;
  });
}

export interface Place {
  readonly servers: Servers;
  readonly backend: Backend;
  readonly concurrency: number;
  readonly jobs: number;
}

async function whileOpen<T>(
  contender: Contender,
  { servers, backend, concurrency, jobs }: Place,
  use: (opened: OpenContender) => Promise<T>,
): Promise<T> {
  const opened = await contender.open(await servers.makeSite(backend), concurrency);
  try {
    await opened.fill(jobs);
    return await use(opened);
  } finally {
    await opened.close();
  }
}
