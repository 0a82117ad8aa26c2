import { parseArgs } from 'node:util';
import type { Backend } from './servers.js';

/** What to measure, from the command line. */
export interface BenchOptions {
  /** Prints the measurements as JSON on the standard output. */
  readonly json: boolean;
  /** The file that a chart is written to, as SVG. */
  readonly svg: string | undefined;
  /** Only what metrics cost: the library without, with prom-client, and with OpenTelemetry. */
  readonly metrics: boolean;
  /** Only what circuit, retry budget and bulkhead cost: the library without, around handlers, and around a call in them. */
  readonly policies: boolean;
  /** Replays, transactions and enqueueing, each next to the least that does the same. */
  readonly others: boolean;
  /** Other systems that run jobs with a durable result, next to plain BullMQ and the library. */
  readonly peers: boolean;
  /** Questions about scale instead of contenders; `only` names some of them. */
  readonly scale: boolean;
  /** Scale: with the sizes that take long. */
  readonly full: boolean;
  /** Scale: the size to ask about, whatever the question. Undefined means the question's own. */
  readonly size: number | undefined;
  /** How often each contender has its turn. */
  readonly rounds: number;
  readonly concurrencies: readonly number[];
  /** Jobs per turn, by backend: enough to last some seconds on two cores. The first tenth is not measured. */
  readonly jobs: Readonly<Record<'redis' | 'postgres', number>>;
  /** The only backend to measure on. Undefined means both. */
  readonly backend: Backend | undefined;
  /** The names of the contenders to compare with the first one of their group, or of questions about scale. Undefined means all. */
  readonly only: readonly string[] | undefined;
}

export function readOptions(): BenchOptions {
  const { values } = parseArgs({
    options: {
      json: { type: 'boolean', default: false },
      svg: { type: 'string' },
      metrics: { type: 'boolean', default: false },
      policies: { type: 'boolean', default: false },
      others: { type: 'boolean', default: false },
      peers: { type: 'boolean', default: false },
      scale: { type: 'boolean', default: false },
      full: { type: 'boolean', default: false },
      size: { type: 'string' },
      rounds: { type: 'string', default: '3' },
      concurrency: { type: 'string', default: '50,300' },
      'redis-jobs': { type: 'string', default: '20000' },
      'postgres-jobs': { type: 'string', default: '3000' },
      backend: { type: 'string' },
      only: { type: 'string' },
    },
  });
  return {
    json: values.json,
    svg: values.svg,
    metrics: values.metrics,
    policies: values.policies,
    others: values.others,
    peers: values.peers,
    scale: values.scale,
    full: values.full,
    size: values.size === undefined ? undefined : Number(values.size),
    rounds: Number(values.rounds),
    concurrencies: values.concurrency.split(',').map(Number),
    jobs: { redis: Number(values['redis-jobs']), postgres: Number(values['postgres-jobs']) },
    backend: values.backend as Backend | undefined,
    only: values.only?.split(','),
  };
}
