import { alone, type Question } from './question.js';
import { openScaleApp } from './scale-app.js';
import { type Usage, WorkerProcess } from './worker-process.js';

/** Jobs between two readings. */
const PORTION = 10_000;
const MEGABYTE = 1024 * 1024;

/** A worker process that goes on and on. The producer is another process, so that its memory is not counted. */
export const memory: Question = {
  name: 'memory',
  asks: 'does a worker process grow with the jobs that it has done?',
  sizes: { usual: 200_000, full: 1_000_000 },
  async answer(servers, size) {
    const site = await servers.makeSite(servers.backends[0] as 'redis' | 'postgres');
    const producer = await openScaleApp(site, {});
    const worker = await WorkerProcess.start(site, { concurrency: 50 });
    worker.run();
    const readings: Reading[] = [];
    for (let done = 0; done < size; done += PORTION) {
      await producer.enqueue(
        Array.from({ length: PORTION }, (_, index) => done + index),
        'queue',
      );
      await WorkerProcess.whenDone([worker], done + PORTION);
      readings.push({ jobs: done + PORTION, ...(await worker.usage('usageAfterGc')) });
    }
    await worker.stop();
    await producer.app.close();
    // The first fifth loads code, fills pools, and lets the heap grow to what a portion needs.
    const settled = readings.slice(Math.floor(readings.length / 5));
    const last = readings.at(-1) as Reading;
    return [
      alone(
        'heap after garbage collection, first of the settled readings',
        'MB',
        (settled[0]?.heapBytes ?? NaN) / MEGABYTE,
      ),
      alone('heap after garbage collection, last reading', 'MB', last.heapBytes / MEGABYTE),
      alone('heap, slope', 'MB/100k jobs', slopeOf(settled, 'heapBytes') / MEGABYTE),
      alone('RSS, first of the settled readings', 'MB', (settled[0]?.rssBytes ?? NaN) / MEGABYTE),
      alone('RSS, last reading', 'MB', last.rssBytes / MEGABYTE),
      alone('RSS, slope', 'MB/100k jobs', slopeOf(settled, 'rssBytes') / MEGABYTE),
      alone('RSS, highest', 'MB', last.maxRssBytes / MEGABYTE),
    ];
  },
};

interface Reading extends Usage {
  readonly jobs: number;
}

/** Of the line that fits the readings best, in bytes per 100,000 jobs. */
function slopeOf(readings: readonly Reading[], name: 'heapBytes' | 'rssBytes'): number {
  const mean = (values: readonly number[]): number =>
    values.reduce((sum, value) => sum + value, 0) / values.length;
  const meanJobs = mean(readings.map(({ jobs }) => jobs));
  const meanBytes = mean(readings.map((reading) => reading[name]));
  const covariance = mean(readings.map((reading) => (reading.jobs - meanJobs) * (reading[name] - meanBytes)));
  return (covariance / mean(readings.map(({ jobs }) => (jobs - meanJobs) ** 2))) * 100_000;
}
