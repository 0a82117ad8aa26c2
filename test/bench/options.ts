import { parseArgs } from 'node:util';

/** What to measure, from the command line. */
export interface BenchOptions {
  readonly json: boolean;
  /** Only what metrics cost: the library without, with prom-client, and with OpenTelemetry. */
  readonly metrics: boolean;
  /** Only what circuit, retry budget and bulkhead cost: the library without, around handlers, and around a call in them. */
  readonly policies: boolean;
  readonly repetitions: number;
  readonly concurrencies: readonly number[];
  /** Jobs per repetition, by backend: enough to last some seconds on two cores. */
  readonly jobs: Readonly<Record<'redis' | 'postgres', number>>;
}

export function readOptions(): BenchOptions {
  const { values } = parseArgs({
    options: {
      json: { type: 'boolean', default: false },
      metrics: { type: 'boolean', default: false },
      policies: { type: 'boolean', default: false },
      repetitions: { type: 'string', default: '3' },
      concurrency: { type: 'string', default: '50,300' },
      'redis-jobs': { type: 'string', default: '20000' },
      'postgres-jobs': { type: 'string', default: '3000' },
    },
  });
  return {
    json: values.json,
    metrics: values.metrics,
    policies: values.policies,
    repetitions: Number(values.repetitions),
    concurrencies: values.concurrency.split(',').map(Number),
    jobs: { redis: Number(values['redis-jobs']), postgres: Number(values['postgres-jobs']) },
  };
}
