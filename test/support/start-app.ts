import 'reflect-metadata';
import { BullModule } from '@nestjs/bullmq';
import type { DynamicModule, INestApplicationContext, LoggerService, Provider, Type } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { TypeOrmModule } from '@nestjs/typeorm';
import {
  IdempotentJobsModule,
  type IdempotentJobsOptions,
  type IdempotentQueueOptions,
  useBackendOfConnection,
} from 'nestjs-idempotent-jobs';
import type { Place } from './place.js';

useBackendOfConnection();

export interface AppOptions {
  readonly queues: readonly (string | IdempotentQueueOptions)[];
  readonly providers?: readonly Provider[];
  readonly imports?: readonly (DynamicModule | Type)[];
  readonly entities?: readonly Type[];
  readonly jobs?: IdempotentJobsOptions;
  /** Default: nothing is logged. */
  readonly logger?: LoggerService;
}

/** A whole Nest application over the public API, in one call. */
export async function startApp(
  place: Place,
  { queues, providers = [], imports = [], entities = [], jobs = {}, logger }: AppOptions,
): Promise<INestApplicationContext> {
  class TestApplication {}
  const root: DynamicModule = {
    module: TestApplication,
    imports: [
      TypeOrmModule.forRoot({
        type: 'postgres',
        url: place.databaseUrl,
        entities: [...entities],
        synchronize: entities.length > 0,
      }),
      BullModule.forRoot({ connection: place.connection, prefix: place.prefix }),
      IdempotentJobsModule.forRoot({ migrations: 'run', logs: 'problems', ...jobs }),
      IdempotentJobsModule.registerQueue(...queues),
      ...imports,
    ],
    providers: [...providers],
  };
  const app = await NestFactory.createApplicationContext(root, {
    logger: logger ?? false,
    abortOnError: false,
  });
  return app;
}
