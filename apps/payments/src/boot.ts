import 'reflect-metadata';
import { type INestApplicationContext, ValidationPipe } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { AppModule } from './app.module.js';
import { migrate } from './database/migrate.js';
import type { Settings } from './settings.js';
import { ShopLogger } from './shop.logger.js';

/** A running process of the shop. */
export interface RunningShop {
  readonly app: INestApplicationContext;
  /** Where it serves HTTP. Undefined for a worker without a port. */
  readonly url: string | undefined;
}

/**
 * Brings the database up to date and starts the parts for the settings' role. Port 0 means a free one. A worker needs no
 * port; with one, it serves its health and metrics.
 */
export async function boot(settings: Settings, port: number | undefined): Promise<RunningShop> {
  await migrate(settings.databaseUrl);
  const logger = new ShopLogger(settings);
  if (port === undefined) {
    const worker = await NestFactory.createApplicationContext(AppModule.with(settings), { logger });
    return { app: worker, url: undefined };
  }
  const app = await NestFactory.create(AppModule.with(settings), { logger });
  app.useGlobalPipes(new ValidationPipe({ whitelist: true, forbidNonWhitelisted: true, transform: true }));
  await app.listen(port, '127.0.0.1');
  return { app, url: await app.getUrl() };
}
