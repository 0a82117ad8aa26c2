/** A worker process of the variants (a) and (b): connections, the gateway and the mailer are those of the sample application. */
import 'reflect-metadata';
import { BullModule } from '@nestjs/bullmq';
import { Module, type Type } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { TypeOrmModule } from '@nestjs/typeorm';
import { selectBackendByConnection } from 'nestjs-idempotent-jobs';
import {
  endWithParent,
  Mailer,
  PaymentGateway,
  queueConnection,
  settingsFrom,
  SettingsModule,
  TABLES,
} from 'payments';
import { CHARGES, RECEIPTS } from './order-job.js';

@Module({})
class PlainShop {}

/** Runs the processors until the program that started this one ends. */
export async function serve(processors: readonly Type[], tables: readonly Type[] = []): Promise<void> {
  endWithParent();
  selectBackendByConnection();
  const settings = settingsFrom(process.env);
  const entities = [...TABLES, ...tables];
  const shop = {
    module: PlainShop,
    imports: [
      SettingsModule.of(settings),
      TypeOrmModule.forRoot({ type: 'postgres', url: settings.databaseUrl, entities }),
      TypeOrmModule.forFeature(entities),
      BullModule.forRoot(queueConnection(settings)),
      BullModule.registerQueue({ name: CHARGES }, { name: RECEIPTS }),
    ],
    providers: [...processors, PaymentGateway, Mailer],
  };
  await NestFactory.createApplicationContext(shop, { logger: ['warn', 'error', 'fatal'] });
  process.send?.({ ready: true });
}
