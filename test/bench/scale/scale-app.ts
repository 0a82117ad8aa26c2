import 'reflect-metadata';
import { BullModule, WorkerHost } from '@nestjs/bullmq';
import { type INestApplicationContext, Module, type Provider } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { getDataSourceToken, TypeOrmModule } from '@nestjs/typeorm';
import type { Worker } from 'bullmq';
import {
  currentOperation,
  getIdempotentQueueToken,
  IdempotentJobsModule,
  IdempotentProcessor,
  type IdempotentQueue,
} from 'nestjs-idempotent-jobs';
import { hash } from 'node:crypto';
import { setTimeout } from 'node:timers/promises';
import type { DataSource } from 'typeorm';
import { chunks, FORGET_COMPLETED, payloadOf, QUEUE, type Site } from '../contender.js';

/** How to open an application. All of it can be handed to another process. */
export interface ScaleAppOptions {
  /** Handlers at once. Undefined means that it has no worker. */
  readonly concurrency?: number;
  /** How long a handler takes, in ms. Default 0: it only returns. */
  readonly handlerMs?: number;
  /** Default `keyed`. A transactional handler reads once, in its transaction. */
  readonly effect?: 'keyed' | 'transactional';
  /** Whether it puts operations on their queue. Default false. */
  readonly dispatches?: boolean;
  /** The most operations of a bundle. Default none. */
  readonly bundle?: number;
  /** Partitions of the ledger. Default none. */
  readonly partitions?: number;
  /** How many tenants share the operations. Default 1. */
  readonly tenants?: number;
  /** Where the library's own connections lead, if not where the application's do. */
  readonly around?: { readonly host: string; readonly port: number };
}

/** An application with the library, whose worker does nothing until it is told to. */
export interface ScaleApp {
  readonly app: INestApplicationContext;
  readonly dataSource: DataSource;
  readonly worker: Worker;
  /** Asks for the operations with these numbers, all with one payload. */
  enqueue(numbers: readonly number[], durability: 'queue' | 'ledger'): Promise<void>;
}

/** Of an operation, in SQL as in JavaScript. Keys come in no order, as those that are made of random ids. */
export const KEY_SQL = (number: string): string => `'charge:' || md5((${number})::text)`;
const keyOf = (number: number): string => `charge:${hash('md5', String(number), 'hex')}`;

/** Likewise. */
export const TENANT_SQL = (number: string, tenants: number): string =>
  `'tenant-' || (${number}) % ${tenants}`;
const tenantOf = (number: number, tenants: number): string => `tenant-${number % tenants}`;

export async function openScaleApp(site: Site, options: ScaleAppOptions): Promise<ScaleApp> {
  const { concurrency, effect = 'keyed', handlerMs = 0, tenants = 1 } = options;

  @IdempotentProcessor(QUEUE, { effect }, { concurrency: concurrency ?? 1, autorun: false })
  class ScaleProcessor extends WorkerHost {
    async process(): Promise<unknown> {
      if (effect === 'transactional') await currentOperation().transaction.query('SELECT 1');
      if (handlerMs > 0) await setTimeout(handlerMs);
      return { ok: true };
    }
  }

  const app = await start(site, concurrency === undefined ? [] : [ScaleProcessor], options);
  const queue = app.get<IdempotentQueue>(getIdempotentQueueToken(QUEUE));
  return {
    app,
    dataSource: app.get<DataSource>(getDataSourceToken()),
    get worker() {
      return app.get(ScaleProcessor).worker;
    },
    async enqueue(numbers, durability) {
      for (const chunk of chunks(numbers.length)) {
        const requests = chunk.map((index) => {
          const number = numbers[index] as number;
          const [operationKey, tenantId] = [keyOf(number), tenantOf(number, tenants)];
          return { name: 'charge', payload: payloadOf(0), operationKey, tenantId };
        });
        await queue.enqueueMany(requests, { durability });
      }
    },
  };
}

function start(
  { connection, prefix, databaseUrl }: Site,
  providers: Provider[],
  { dispatches = false, bundle, around, partitions, concurrency = 0 }: ScaleAppOptions,
): Promise<INestApplicationContext> {
  @Module({
    imports: [
      // A transactional handler holds a connection, and the library leaves four of the pool for others.
      TypeOrmModule.forRoot({ type: 'postgres', url: databaseUrl, poolSize: Math.max(10, concurrency + 4) }),
      BullModule.forRoot({ connection, prefix, defaultJobOptions: FORGET_COMPLETED }),
      IdempotentJobsModule.forRoot({
        migrations: 'run',
        logs: 'none',
        doctor: 'off',
        dispatch: { enabled: dispatches },
        ...(partitions !== undefined && { partitions }),
        ...(around && { pool: { connection: around } }),
      }),
      IdempotentJobsModule.registerQueue({
        name: QUEUE,
        ...(bundle !== undefined && { bundle: { max: bundle } }),
      }),
    ],
    providers,
  })
  class ScaleModule {}

  return NestFactory.createApplicationContext(ScaleModule, { logger: ['error'], abortOnError: false });
}
