import type { Socket } from 'node:net';
import type { Redis } from 'ioredis';
import { Client } from 'pg';

/** What went over the wire. */
export interface Traffic {
  /** Statements that were sent to Postgres: as many round trips. */
  readonly statements: number;
  readonly postgresBytes: number;
  readonly redisCommands: number;
  /** How often Redis has read from a socket: about as many round trips. */
  readonly redisReads: number;
  readonly redisBytes: number;
}

/** Counts what this process says to Postgres, by way of `pg`, and what anybody says to Redis. */
export class TrafficMeter {
  static #statements = 0;
  static readonly #sockets = new Set<Socket>();
  static readonly #leftOut = new WeakSet<Client>();
  static #isWatching = false;

  constructor(private readonly redis: Redis | undefined) {
    TrafficMeter.#watch();
  }

  /** Does not count what the benchmark itself says, through this connection. */
  static leaveOut(client: Client): void {
    TrafficMeter.#leftOut.add(client);
  }

  async read(): Promise<Traffic> {
    const sockets = [...TrafficMeter.#sockets];
    const postgresBytes = sockets.reduce(
      (sum, { bytesRead, bytesWritten }) => sum + bytesRead + bytesWritten,
      0,
    );
    return { statements: TrafficMeter.#statements, postgresBytes, ...(await this.#readRedis()) };
  }

  async #readRedis(): Promise<Omit<Traffic, 'statements' | 'postgresBytes'>> {
    if (this.redis === undefined) return { redisCommands: 0, redisReads: 0, redisBytes: 0 };
    const info = await this.redis.info();
    const field = (name: string): number => Number(new RegExp(`^${name}:(\\d+)`, 'm').exec(info)?.[1] ?? 0);
    return {
      redisCommands: field('total_commands_processed'),
      redisReads: field('total_reads_processed'),
      redisBytes: field('total_net_input_bytes') + field('total_net_output_bytes'),
    };
  }

  static #watch(): void {
    if (TrafficMeter.#isWatching) return;
    TrafficMeter.#isWatching = true;
    const query = Reflect.get(Client.prototype, 'query') as (...args: unknown[]) => unknown;
    Client.prototype.query = function (this: Client, ...args: unknown[]) {
      if (TrafficMeter.#leftOut.has(this)) return query.apply(this, args);
      TrafficMeter.#statements += 1;
      TrafficMeter.#sockets.add((this as unknown as { connection: { stream: Socket } }).connection.stream);
      return query.apply(this, args);
    } as Client['query'];
  }
}

/** What went over the wire between two readings, for each job. */
export function trafficPerJob(from: Traffic, to: Traffic, jobs: number): Traffic {
  const each = (name: keyof Traffic): number => (to[name] - from[name]) / jobs;
  return {
    statements: each('statements'),
    postgresBytes: each('postgresBytes'),
    redisCommands: each('redisCommands'),
    redisReads: each('redisReads'),
    redisBytes: each('redisBytes'),
  };
}
