import { randomUUID } from 'node:crypto';
import { startPostgres, startRedis } from 'local-servers';
import { useBackendOfConnection } from 'nestjs-idempotent-jobs';
import { bullmq, type Contender, findThenSave, idempotent, type Site } from './contenders.js';
import { readOptions } from './options.js';

/*
 * How much of plain BullMQ's speed is left: three ways of working through the same queue, in one run, on the same
 * servers. Contenders take turns, so that a slow minute of the machine hits all of them; the median counts. The
 * servers are private ones started for this run, with the durability an application would have.
 */

type Backend = 'redis' | 'postgres';

interface Measurement {
  readonly backend: Backend;
  readonly concurrency: number;
  readonly contender: Contender['name'];
  readonly jobsPerSecond: number;
  /** Of plain BullMQ on the same backend at the same concurrency. */
  readonly ratio: number;
}

const CONTENDERS = [bullmq, findThenSave, idempotent];
const options = readOptions();
useBackendOfConnection();

const postgres = await startPostgres({ durable: true });
const ownRedis = process.env['REDIS_URL'] === undefined ? await startRedis() : undefined;
const redisUrl = process.env['REDIS_URL'] ?? ownRedis?.url;
try {
  if (redisUrl === undefined)
    console.error('Redis is skipped: no redis-server on the PATH, and REDIS_URL is not set.');
  const backends: Backend[] = redisUrl === undefined ? ['postgres'] : ['redis', 'postgres'];
  const measurements: Measurement[] = [];
  for (const backend of backends) {
    for (const concurrency of options.concurrencies)
      measurements.push(...(await compare(backend, concurrency)));
  }
  if (options.json) console.log(JSON.stringify(measurements));
} finally {
  await ownRedis?.stop();
  await postgres.stop();
}

async function compare(backend: Backend, concurrency: number): Promise<Measurement[]> {
  const rates = new Map<Contender['name'], number[]>(CONTENDERS.map(({ name }) => [name, []]));
  for (let repetition = 0; repetition < options.repetitions; repetition += 1) {
    for (const contender of CONTENDERS) {
      rates.get(contender.name)?.push(await measure(contender, backend, concurrency));
    }
  }
  const base = median(rates.get('bullmq') ?? []);
  return CONTENDERS.map(({ name }) => {
    const rate = median(rates.get(name) ?? []);
    const measurement = {
      backend,
      concurrency,
      contender: name,
      jobsPerSecond: Math.round(rate),
      ratio: Number((rate / base).toFixed(2)),
    };
    console.error(
      `${backend.padEnd(8)} concurrency ${String(concurrency).padEnd(4)} ${name.padEnd(12)} ${String(measurement.jobsPerSecond).padStart(6)} jobs/s  ${measurement.ratio.toFixed(2)} x BullMQ`,
    );
    return measurement;
  });
}

async function measure(contender: Contender, backend: Backend, concurrency: number): Promise<number> {
  const jobs = options.jobs[backend];
  const lane = await contender.open(await makeSite(backend), concurrency);
  try {
    await lane.fill(jobs);
    const startedAt = performance.now();
    await lane.drain(jobs);
    return (jobs * 1000) / (performance.now() - startedAt);
  } finally {
    await lane.close();
  }
}

async function makeSite(backend: Backend): Promise<Site> {
  const name = `bench_${randomUUID().replaceAll('-', '')}`;
  const databaseUrl = await postgres.createDatabase(name);
  const connection =
    backend === 'postgres' ? { connectionString: databaseUrl, migrate: true } : { url: redisUrl };
  return { databaseUrl, connection: connection as Site['connection'], prefix: name };
}

function median(values: number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}
