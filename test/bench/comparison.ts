import type { Turn } from './measure.js';
import type { ProcessorTime } from './processor-time.js';
import type { Backend } from './servers.js';
import type { Traffic } from './traffic.js';

/** The {@link median} of all rounds, with the least and the most. */
export interface Spread {
  readonly median: number;
  readonly least: number;
  readonly most: number;
}

/** What all rounds of a contender have shown, on one backend at one concurrency. */
export interface Measurement {
  readonly backend: Backend;
  readonly concurrency: number;
  readonly contender: string;
  readonly node: string;
  readonly jobsPerSecond: number;
  /** Of the first contender in the same round. */
  readonly ratio: Spread;
  /** In µs per job: the least of all rounds, because whatever disturbs a machine only adds to it. */
  readonly cpuUs: ProcessorTime;
  /** Per job. */
  readonly traffic: Traffic;
  /** In this process, per job. */
  readonly allocatedBytes: number;
  /** How much CPU time it takes to tell subscribers of a job, or to guard a call, in µs. */
  readonly ownUs: number | undefined;
}

/** All turns of a contender, one for each round, and those of the contender that it is compared with. */
export interface Rounds {
  readonly turns: readonly Turn[];
  readonly base: readonly Turn[];
  readonly allocatedBytes: number;
}

export function summarize(
  named: Pick<Measurement, 'backend' | 'concurrency' | 'contender'>,
  { turns, base, allocatedBytes }: Rounds,
): Measurement {
  const ratios = turns.map(({ jobsPerSecond }, round) => jobsPerSecond / (base[round]?.jobsPerSecond ?? NaN));
  const own = turns.flatMap(({ ownUs }) => (ownUs === undefined ? [] : [ownUs]));
  const least = (name: keyof ProcessorTime): number => Math.min(...turns.map(({ cpu }) => cpu[name] ?? NaN));
  const known = (name: 'postgres' | 'redis'): number | undefined =>
    turns.some(({ cpu }) => cpu[name] === undefined) ? undefined : Math.round(least(name));
  return {
    ...named,
    node: process.version,
    jobsPerSecond: Math.round(median(turns.map(({ jobsPerSecond }) => jobsPerSecond))),
    ratio: {
      median: rounded(median(ratios), 2),
      least: rounded(Math.min(...ratios), 2),
      most: rounded(Math.max(...ratios), 2),
    },
    cpuUs: { node: Math.round(least('node')), postgres: known('postgres'), redis: known('redis') },
    traffic: roundedTraffic((turns.at(-1) as Turn).traffic),
    allocatedBytes: Math.round(allocatedBytes),
    ownUs: own.length === 0 ? undefined : rounded(median(own), 2),
  };
}

/** Of the longest name. */
const NAME_WIDTH = 'floorBundledOptimistic'.length;

/** One line of the table. */
export function lineOf({ backend, concurrency, contender, ...found }: Measurement): string {
  const { jobsPerSecond, ratio, cpuUs, traffic, allocatedBytes } = found;
  const us = (value: number | undefined): string => String(value ?? '–').padStart(5);
  return [
    backend.padEnd(8),
    String(concurrency).padStart(4),
    contender.padEnd(NAME_WIDTH),
    String(jobsPerSecond).padStart(7),
    `${ratio.median.toFixed(2)} [${ratio.least.toFixed(2)}–${ratio.most.toFixed(2)}]`.padStart(18),
    us(cpuUs.node),
    us(cpuUs.postgres),
    us(cpuUs.redis),
    `${(allocatedBytes / 1024).toFixed(1)} KB`.padStart(9),
    traffic.statements.toFixed(2).padStart(6),
    `${(traffic.postgresBytes / 1024).toFixed(1)} KB`.padStart(8),
    traffic.redisCommands.toFixed(1).padStart(5),
  ].join(' ');
}

export const HEADER = [
  'backend ',
  'conc',
  'contender'.padEnd(NAME_WIDTH),
  ' jobs/s',
  '  x first [spread]',
  ' node',
  '   pg',
  'redis',
  'allocated',
  'stmts',
  '   to pg',
  'redis commands    (µs of CPU, bytes and statements per job)',
].join(' ');

/** The one in the middle; of an even number, the greater of the two in the middle. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}

function rounded(value: number, digits: number): number {
  return Number(value.toFixed(digits));
}

function roundedTraffic(traffic: Traffic): Traffic {
  const entries = Object.entries(traffic).map(([name, value]) => [name, rounded(value as number, 3)]);
  return Object.fromEntries(entries) as Traffic;
}
