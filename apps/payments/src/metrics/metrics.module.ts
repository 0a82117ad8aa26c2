import { type DynamicModule, Module } from '@nestjs/common';
import { Registry } from 'prom-client';
import { MetricsController } from './metrics.controller.js';

/** Serves the metrics of the registry. */
@Module({ controllers: [MetricsController] })
export class MetricsModule {
  static of(registry: Registry): DynamicModule {
    return { module: MetricsModule, providers: [{ provide: Registry, useValue: registry }] };
  }
}
