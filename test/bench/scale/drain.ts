import { Countdown } from '../contender.js';
import { median } from '../comparison.js';
import { perJob, type ProcessorTime, processorTime } from '../processor-time.js';
import type { Servers } from '../servers.js';
import type { ScaleApp } from './scale-app.js';

/** What working off some jobs has shown. */
export interface Drained {
  readonly jobsPerSecond: number;
  /** In µs per job. */
  readonly cpu: ProcessorTime;
  /** Between one job's end and the next one's: with a concurrency of one, how long a job takes. */
  readonly p50Ms: number;
}

/** Lets the application's worker do the jobs that `fill` puts on the queue. The first tenth is not measured. */
export async function drain(
  servers: Servers,
  { worker }: ScaleApp,
  { jobs, concurrency, fill }: { jobs: number; concurrency: number; fill: () => Promise<void> },
): Promise<Drained> {
  const isFirst = !worker.isRunning();
  if (!isFirst) await worker.pause();
  await fill();
  worker.concurrency = concurrency;
  const warmUp = Math.floor(jobs / 10);
  let startedAt = 0;
  let before = processorTime(servers.pids);
  const countdown = new Countdown(jobs, warmUp, () => {
    before = processorTime(servers.pids);
    startedAt = performance.now();
  });
  const intervals: number[] = [];
  let lastAt = performance.now();
  const onCompleted = (): void => {
    const now = performance.now();
    intervals.push(now - lastAt);
    lastAt = now;
    countdown.count();
  };
  worker.on('completed', onCompleted);
  if (isFirst) worker.run().catch((error: unknown) => countdown.fail(error));
  else void worker.resume();
  await countdown.over;
  worker.off('completed', onCompleted);
  const measured = jobs - warmUp;
  return {
    jobsPerSecond: (measured * 1000) / (performance.now() - startedAt),
    cpu: perJob(before, processorTime(servers.pids), measured),
    p50Ms: median(intervals.slice(warmUp)),
  };
}
