import 'reflect-metadata';
import { randomUUID } from 'node:crypto';
import { BullModule } from '@nestjs/bullmq';
import type { DynamicModule, INestApplicationContext, Provider, Type } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { getDataSourceToken, TypeOrmModule } from '@nestjs/typeorm';
import {
  IdempotentJobsModule,
  type IdempotentJobsOptions,
  type IdempotentQueueOptions,
  useBackendOfConnection,
} from 'nestjs-idempotent-jobs';
import { Client } from 'pg';
import { DataSource } from 'typeorm';
import { inject } from 'vitest';

useBackendOfConnection();

/** Where BullMQ keeps its queues. */
export type Backend = 'redis' | 'postgres';

/** The backends there are here. Redis suites are skipped, and said to be, where there is no Redis. */
export const BACKENDS: readonly Backend[] =
  inject('redisUrl') === undefined ? ['postgres'] : ['redis', 'postgres'];

/** A database and a queue namespace that nothing else uses. */
export interface Place {
  readonly backend: Backend;
  readonly databaseUrl: string;
  readonly connection: object;
  readonly prefix: string;
}

export async function makePlace(backend: Backend): Promise<Place> {
  const name = `test_${randomUUID().replaceAll('-', '')}`;
  const admin = new Client({ connectionString: inject('postgresUrl') });
  await admin.connect();
  await admin.query(`CREATE DATABASE ${name}`);
  await admin.end();
  const url = new URL(inject('postgresUrl'));
  url.pathname = `/${name}`;
  const databaseUrl = url.toString();
  const connection =
    backend === 'postgres'
      ? { connectionString: databaseUrl, migrate: true, max: 4 }
      : { url: inject('redisUrl') };
  return { backend, databaseUrl, connection, prefix: name };
}

export interface AppOptions {
  readonly queues: readonly (string | IdempotentQueueOptions)[];
  readonly providers?: readonly Provider[];
  readonly imports?: readonly (DynamicModule | Type)[];
  readonly entities?: readonly Type[];
  readonly jobs?: IdempotentJobsOptions;
}

/** A whole Nest application over the public API, in one call. */
export async function startApp(
  place: Place,
  { queues, providers = [], imports = [], entities = [], jobs = {} }: AppOptions,
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
    logger: false,
    abortOnError: false,
  });
  return app;
}

export function dataSourceOf(app: INestApplicationContext): DataSource {
  return app.get<DataSource>(getDataSourceToken());
}
