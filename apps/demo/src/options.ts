import { parseArgs } from 'node:util';
import type { QueueBackend } from 'payments';

/** What the command line asks for. */
export interface DemoOptions {
  readonly seed: number;
  readonly orders: number;
  readonly backend: QueueBackend;
  /** Whether Redis loses everything in the middle of each run. Only with the backend `redis`. */
  readonly loseRedis: boolean;
  readonly json: boolean;
}

export const USAGE = `npm run demo -- [--seed N] [--orders N] [--backend redis|postgres] [--lose-redis] [--json]

  --seed N      which stream of orders, and which faults         (default 1)
  --orders N    how many orders, at least 10                     (default 300)
  --backend B   where BullMQ keeps its queues: postgres brings its own server;
                redis takes REDIS_URL, or redis-server from the PATH   (default postgres)
  --lose-redis  Redis is flushed in the middle of each run; it is a Redis of the
                demo's own, so it needs redis-server on the PATH
  --json        as the last line, the table as JSON`;

/** The command line makes no sense; its message says why. */
export class UsageError extends Error {}

/** @throws UsageError */
export function readOptions(args: readonly string[]): DemoOptions {
  const values = parse(args);
  const loseRedis = values['lose-redis'] ?? false;
  const { backend = loseRedis ? 'redis' : 'postgres' } = values;
  if (backend !== 'postgres' && backend !== 'redis')
    throw new UsageError(`--backend is redis or postgres, not "${backend}"`);
  if (loseRedis && backend !== 'redis')
    throw new UsageError('--lose-redis loses queues on Redis; it does not go with --backend postgres');
  return {
    seed: wholeNumber('seed', values.seed ?? '1', 0),
    orders: wholeNumber('orders', values.orders ?? '300', 10),
    backend,
    loseRedis,
    json: values.json ?? false,
  };
}

function parse(args: readonly string[]) {
  try {
    const options = {
      seed: { type: 'string' },
      orders: { type: 'string' },
      backend: { type: 'string' },
      'lose-redis': { type: 'boolean' },
      json: { type: 'boolean' },
    } as const;
    return parseArgs({ args: [...args], options }).values;
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

function wholeNumber(name: string, text: string, least: number): number {
  const value = Number(text);
  if (text === '' || !Number.isSafeInteger(value) || value < least)
    throw new UsageError(`--${name} is a whole number from ${least}, not "${text}"`);
  return value;
}
