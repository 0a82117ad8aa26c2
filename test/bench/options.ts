import { parseArgs } from 'node:util';

/** What to measure, from the command line. */
export interface BenchOptions {
  readonly json: boolean;
  readonly repetitions: number;
  readonly concurrencies: readonly number[];
  /** Jobs per repetition, by backend: enough to last some seconds on two cores. */
  readonly jobs: Readonly<Record<'redis' | 'postgres', number>>;
}

export function readOptions(): BenchOptions {
  const { values } = parseArgs({
    options: {
      json: { type: 'boolean', default: false },
      repetitions: { type: 'string', default: '3' },
      concurrency: { type: 'string', default: '50,300' },
      'redis-jobs': { type: 'string', default: '20000' },
      'postgres-jobs': { type: 'string', default: '3000' },
    },
  });
  return {
    json: values.json,
    repetitions: Number(values.repetitions),
    concurrencies: values.concurrency.split(',').map(Number),
    jobs: { redis: Number(values['redis-jobs']), postgres: Number(values['postgres-jobs']) },
  };
}
