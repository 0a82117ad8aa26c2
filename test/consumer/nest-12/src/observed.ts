import 'reflect-metadata';
import { BullModule } from '@nestjs/bullmq';
import { Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { TypeOrmModule } from '@nestjs/typeorm';
import { metrics, trace } from '@opentelemetry/api';
import { IdempotentJobsModule, selectBackendByConnection } from 'nestjs-idempotent-jobs';
import { otelMetrics, otelTracing } from 'nestjs-idempotent-jobs/otel';
import { prometheusMetrics } from 'nestjs-idempotent-jobs/prometheus';
import { Registry } from 'prom-client';

/* The same with what needs an optional peer. */

const registry = new Registry();

selectBackendByConnection();

@Module({
  imports: [
    TypeOrmModule.forRoot({ type: 'postgres', url: process.env['DATABASE_URL']! }),
    BullModule.forRoot({
      connection: { connectionString: process.env['DATABASE_URL'], migrate: true },
    }),
    IdempotentJobsModule.forRoot({
      doctor: 'off',
      tracing: otelTracing({ tracer: trace.getTracer('consumer') }),
      metrics: [
        prometheusMetrics({ registry }),
        otelMetrics(),
        otelMetrics({ meter: metrics.getMeter('consumer') }),
      ],
    }),
    IdempotentJobsModule.registerQueue('charges'),
  ],
})
class ObservedModule {}

const app = await NestFactory.createApplicationContext(ObservedModule, { logger: ['warn', 'error'] });
const scraped = (await registry.metrics()).split('\n');
for (const name of ['fence_rejected_total', 'dispatch_pending'])
  console.log(scraped.find((line) => line.startsWith(name)));
await app.close();
