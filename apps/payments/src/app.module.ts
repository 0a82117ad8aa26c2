import { BullModule } from '@nestjs/bullmq';
import {
  type DynamicModule,
  type MiddlewareConsumer,
  Module,
  type ModuleMetadata,
  type NestModule,
} from '@nestjs/common';
import { TypeOrmModule } from '@nestjs/typeorm';
import { IdempotentJobsModule, TenantMiddleware, selectBackendByConnection } from 'nestjs-idempotent-jobs';
import { prometheusMetrics } from 'nestjs-idempotent-jobs/prometheus';
import { Registry } from 'prom-client';
import { AlertsModule } from './alerts/alerts.module.js';
import { ChargesModule } from './charges/charges.module.js';
import { TABLES } from './database/tables.js';
import { HealthModule } from './health/health.module.js';
import { InventoryModule } from './inventory/inventory.module.js';
import { MetricsModule } from './metrics/metrics.module.js';
import { OrdersModule } from './orders/orders.module.js';
import { DEPENDENCIES, POLICIES } from './pace.js';
import { queueConnection } from './queue-connection.js';
import { ReceiptsModule } from './receipts/receipts.module.js';
import type { Settings } from './settings.js';
import { SettingsModule } from './settings.module.js';
import { tenantOf } from './tenancy/tenant-of.js';
import { currentTrace, traceRequest } from './tracing/request-trace.js';

/** The shop's back end; `settings.role` decides which of its parts run in this process. */
@Module({})
export class AppModule implements NestModule {
  static with(settings: Settings): DynamicModule {
    selectBackendByConnection();
    const registry = new Registry();
    return {
      module: AppModule,
      imports: [
        SettingsModule.of(settings),
        TypeOrmModule.forRoot({ type: 'postgres', url: settings.databaseUrl, entities: TABLES }),
        BullModule.forRoot(queueConnection(settings)),
        IdempotentJobsModule.forRoot({
          tenants: { resolve: tenantOf },
          leaseMs: settings.leaseMs,
          retryPolicies: POLICIES,
          dependencies: DEPENDENCIES,
          dispatch: { redispatchAfterMs: settings.redispatchAfterMs },
          logs: settings.logs,
          metrics: [prometheusMetrics({ registry })],
          traceContext: currentTrace,
          // Without logs, a program reads the events instead.
          doctor: settings.logs === 'none' ? 'off' : 'warn',
        }),
        HealthModule,
        MetricsModule.of(registry),
        ...(settings.role === 'worker' ? [] : [OrdersModule]),
        ...(settings.role === 'api' ? [] : workersOf(settings)),
      ],
    };
  }

  configure(consumer: MiddlewareConsumer): void {
    consumer.apply(traceRequest, TenantMiddleware).forRoutes('*path');
  }
}

/** The modules that run jobs: what the services can do decides which processors charge and mail. */
function workersOf({ chargeBy, mailBy }: Settings): NonNullable<ModuleMetadata['imports']> {
  return [InventoryModule, ChargesModule.by(chargeBy), ReceiptsModule.by(mailBy), AlertsModule];
}
