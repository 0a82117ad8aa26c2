import 'reflect-metadata';
import { BullModule } from '@nestjs/bullmq';
import type { DynamicModule, INestApplicationContext, LoggerService, Provider, Type } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { TypeOrmModule } from '@nestjs/typeorm';
import {
  IdempotentJobsModule,
  type IdempotentJobsOptions,
  type IdempotentQueueOptions,
  selectBackendByConnection,
} from 'nestjs-idempotent-jobs';
import type { Place } from './place.js';

selectBackendByConnection();

export interface AppOptions {
  readonly queues: readonly (string | IdempotentQueueOptions)[];
  readonly providers?: readonly Provider[];
  readonly imports?: readonly (DynamicModule | Type)[];
  readonly entities?: readonly Type[];
  readonly jobs?: IdempotentJobsOptions;
  /** Default: nothing is logged. */
  readonly logger?: LoggerService;
}

/** The root module of an application over the public API. */
export function rootModule(
  place: Place,
  { queues, providers = [], imports = [], entities = [], jobs = {} }: AppOptions,
): DynamicModule {
  class TestApplication {}
  return {
    module: TestApplication,
    imports: [
      TypeOrmModule.forRoot({
        type: 'postgres',
        url: place.databaseUrl,
        entities: [...entities],
        synchronize: entities.length > 0,
      }),
      BullModule.forRoot({ connection: place.connection, ...(place.prefix && { prefix: place.prefix }) }),
      IdempotentJobsModule.forRoot({ migrations: 'run', logs: 'problems', ...LEDGER, ...jobs }),
      IdempotentJobsModule.registerQueue(...queues.map(withBundles)),
      ...imports,
    ],
    providers: [...providers],
  };
}

/** The most operations of a bundle, in all suites: `npm run test:bundles` runs all of them with it. */
const BUNDLE = process.env['BUNDLES'];

/** How ledgers are made, in all suites: `npm run test:partitions` runs all of them on partitioned ones. */
const LEDGER =
  process.env['PARTITIONS'] === undefined ? {} : { partitions: Number(process.env['PARTITIONS']) };

/** A queue without bundles, also then: for cases that count BullMQ's jobs. */
export function singly(name: string): IdempotentQueueOptions {
  return { name, bundle: undefined };
}

function withBundles(queue: string | IdempotentQueueOptions): string | IdempotentQueueOptions {
  if (BUNDLE === undefined) return queue;
  return { bundle: { max: Number(BUNDLE) }, ...(typeof queue === 'string' ? { name: queue } : queue) };
}

/** A whole Nest application, in one call. */
export async function startApp(place: Place, options: AppOptions): Promise<INestApplicationContext> {
  return NestFactory.createApplicationContext(rootModule(place, options), {
    logger: options.logger ?? false,
    abortOnError: false,
  });
}
