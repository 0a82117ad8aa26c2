import { randomUUID } from 'node:crypto';
import { startPostgres, startRedis } from 'local-servers';
import { selectBackendByConnection } from 'nestjs-idempotent-jobs';
import {
  bullmq,
  type Contender,
  counted,
  dependent,
  findThenSave,
  guardedCall,
  idempotent,
  type Lane,
  measured,
  type Site,
} from './contenders.js';
import { readOptions } from './options.js';

/*
 * How much of plain BullMQ's speed is left: three ways of working through the same queue, in one run, on the same
 * servers. With `--metrics`, how much of the library's own speed is left when it is counted; with `--policies`, when its
 * calls are guarded by circuit, bulkhead and retry budget. Contenders take turns, so
 * that a slow minute of the machine hits all of them; the median counts. The servers are private ones started for this
 * run, with the durability an application would have.
 */

type Backend = 'redis' | 'postgres';

interface Measurement {
  readonly backend: Backend;
  readonly concurrency: number;
  readonly contender: Contender['name'];
  readonly jobsPerSecond: number;
  /** Of the first contender on the same backend at the same concurrency. */
  readonly ratio: number;
  /** How much CPU time it takes to tell subscribers of a job, or to guard a call, in µs. */
  readonly ownUs?: number;
}

const options = readOptions();
const CONTENDERS = contenders();
/** Enough for the compiler to be through with them. */
const ENOUGH = 200_000;
selectBackendByConnection();

const postgres = await startPostgres({ durable: true });
const givenRedisUrl = process.env['REDIS_URL'] || undefined;
const ownRedis = givenRedisUrl === undefined ? await startRedis() : undefined;
const redisUrl = givenRedisUrl ?? ownRedis?.url;
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
  const rates = new Map<Contender['name'], Rate[]>(CONTENDERS.map(({ name }) => [name, []]));
  for (let repetition = 0; repetition < options.repetitions; repetition += 1) {
    for (const contender of CONTENDERS) {
      rates.get(contender.name)?.push(await measure(contender, backend, concurrency));
    }
  }
  const rateOf = (name: Contender['name']): number =>
    median((rates.get(name) ?? []).map(({ jobsPerSecond }) => jobsPerSecond));
  const first = CONTENDERS[0]?.name ?? 'bullmq';
  const base = rateOf(first);
  return CONTENDERS.map(({ name }) => {
    const rate = rateOf(name);
    const own = (rates.get(name) ?? []).flatMap(({ ownUs }) => (ownUs === undefined ? [] : [ownUs]));
    const measurement = {
      backend,
      concurrency,
      contender: name,
      jobsPerSecond: Math.round(rate),
      ratio: Number((rate / base).toFixed(2)),
      ...(own.length > 0 && { ownUs: Number(median(own).toFixed(2)) }),
    };
    const what = options.metrics ? 'to tell of a job' : 'to guard a call';
    const toTell = measurement.ownUs === undefined ? '' : `  ${measurement.ownUs.toFixed(2)} µs CPU ${what}`;
    console.error(
      `${backend.padEnd(8)} concurrency ${String(concurrency).padEnd(4)} ${name.padEnd(12)} ${String(measurement.jobsPerSecond).padStart(6)} jobs/s  ${measurement.ratio.toFixed(2)} x ${first}${toTell}`,
    );
    return measurement;
  });
}

interface Rate {
  readonly jobsPerSecond: number;
  readonly ownUs: number | undefined;
}

async function measure(contender: Contender, backend: Backend, concurrency: number): Promise<Rate> {
  const jobs = options.jobs[backend];
  const lane = await contender.open(await makeSite(backend), concurrency);
  try {
    await lane.fill(jobs);
    const startedAt = performance.now();
    await lane.drain(jobs);
    const jobsPerSecond = (jobs * 1000) / (performance.now() - startedAt);
    return { jobsPerSecond, ownUs: await ownUsOf(lane) };
  } finally {
    await lane.close();
  }
}

async function ownUsOf(lane: Lane): Promise<number | undefined> {
  if (options.metrics) return lane.tellUs?.(ENOUGH);
  return options.policies ? lane.guardUs?.(ENOUGH) : undefined;
}

function contenders(): readonly Contender[] {
  if (options.metrics) return [idempotent, counted, measured];
  return options.policies ? [idempotent, dependent, guardedCall] : [bullmq, findThenSave, idempotent];
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
