import { BullModule, getQueueToken, type RegisterQueueOptions } from '@nestjs/bullmq';
import { type DynamicModule, Inject, Module, type Provider } from '@nestjs/common';
import {
  ApplicationConfig,
  DiscoveryModule,
  DiscoveryService,
  ExternalContextCreator,
  ModulesContainer,
} from '@nestjs/core';
import { getDataSourceToken } from '@nestjs/typeorm';
import type { Queue } from 'bullmq';
import type { DataSource } from 'typeorm';
import { ApplicationLifecycle } from './application.lifecycle.js';
import { IdempotencyService } from './call/idempotency.service.js';
import { DeadLetterService } from './dead-letter/dead-letter.service.js';
import { DEAD_LETTER_QUEUE_SUFFIX } from './dead-letter/letter.js';
import { DependencyGuard } from './dependency/dependency-guard.js';
import { DispatchService } from './dispatch/dispatch.service.js';
import { CheckUp } from './doctor/check-up.js';
import { describeApp } from './doctor/describe-app.js';
import { Doctor } from './doctor/doctor.js';
import { QueueDirectory } from './doctor/queue-directory.js';
import { QueueRegistry } from './enqueue/queue-registry.js';
import { assembleEngine, type Engine } from './engine.js';
import { IdempotentJobsHealthIndicator } from './health/idempotent-jobs.health.js';
import {
  type IdempotentJobsAsyncOptions,
  type IdempotentJobsOptions,
  RESOLVED_OPTIONS,
  type ResolvedOptions,
  resolveOptions,
} from './idempotent-jobs.options.js';
import { EnhancerChains } from './intake/enhancer-chain.js';
import { IdempotencyInterceptor } from './intake/idempotency.interceptor.js';
import { ProcessorHost } from './intake/processor-host.js';
import { JobEvents } from './observe/job-events.js';
import { ConfigurationError } from './operation/errors.js';
import { OutcomeService } from './outcome/outcome.service.js';
import { prepareLedger } from './postgres/prepare-ledger.js';
import { Erasure } from './retention/erasure.js';
import type { RetentionOptions } from './retention/retention.options.js';
import { RetentionService } from './retention/retention.service.js';
import { TenantContext } from './tenancy/tenant-context.js';
import { TenantMiddleware } from './tenancy/tenant.middleware.js';

/** A queue of idempotent jobs. */
export interface IdempotentQueueOptions {
  readonly name: string;
  /** Where its dead letters are announced. Default: the name with `-dlq`. Read it with `@OnDeadLetter()`, or with a processor, not both. */
  readonly deadLetterQueue?: string;
  /** How long what is kept, as far as it differs from the module's. */
  readonly retention?: RetentionOptions;
  /** BullMQ's and @nestjs/bullmq's own options for both queues: connection, prefix, configKey, defaultJobOptions … */
  readonly bullmq?: Omit<RegisterQueueOptions, 'name' | 'processors'>;
}

const ENGINE = Symbol('nestjs-idempotent-jobs:engine');

/** Injection token of an {@link IdempotentQueue}. */
export function getIdempotentQueueToken(name: string): string {
  return `IdempotentQueue_${name}`;
}

/** Injects the {@link IdempotentQueue} of that name. */
export function InjectIdempotentQueue(name: string): ParameterDecorator & PropertyDecorator {
  return Inject(getIdempotentQueueToken(name));
}

/**
 * The module: `forRoot` once in the application (a second one is refused at boot), `registerQueue` wherever a queue is used. Needs `TypeOrmModule` with
 * a Postgres DataSource and `BullModule.forRoot` in the application.
 */
@Module({})
export class IdempotentJobsModule {
  static forRoot(options: IdempotentJobsOptions = {}): DynamicModule {
    return assemble(options.dataSource, {
      provide: RESOLVED_OPTIONS,
      useFactory: () => resolveOptions(options),
    });
  }

  /** As {@link forRoot}, with options from a factory. */
  static forRootAsync({
    imports = [],
    inject = [],
    dataSource,
    useFactory,
  }: IdempotentJobsAsyncOptions): DynamicModule {
    const options: Provider = {
      provide: RESOLVED_OPTIONS,
      inject,
      useFactory: async (...dependencies: unknown[]) => resolveOptions(await useFactory(...dependencies)),
    };
    return assemble(dataSource, options, imports);
  }

  /** Registers queues with BullMQ, their dead-letter queues, and an {@link IdempotentQueue} for each. */
  static registerQueue(...queues: (string | IdempotentQueueOptions)[]): DynamicModule {
    const named = queues.map((queue) => (typeof queue === 'string' ? { name: queue } : queue));
    const providers = named.map(({ name, retention, deadLetterQueue = name + DEAD_LETTER_QUEUE_SUFFIX }) => ({
      provide: getIdempotentQueueToken(name),
      inject: [QueueRegistry, getQueueToken(name), getQueueToken(deadLetterQueue)],
      useFactory: (registry: QueueRegistry, queue: Queue, letters: Queue) =>
        registry.register(queue, letters, retention),
    }));
    const bullQueues = named.flatMap(
      ({ name, deadLetterQueue = name + DEAD_LETTER_QUEUE_SUFFIX, bullmq }) => [
        { ...bullmq, name },
        { ...bullmq, name: deadLetterQueue },
      ],
    );
    const bullModule = BullModule.registerQueue(...bullQueues);
    return {
      module: IdempotentJobsModule,
      imports: [bullModule],
      providers,
      exports: [...providers.map(({ provide }) => provide), bullModule],
    };
  }
}

/**
 * Two of them would be two engines with options of their own, and each injection would get the one or the other.
 *
 * @throws ConfigurationError
 */
function refuseSecondRoot(modules: ModulesContainer): void {
  const roots = [...modules.values()].filter(({ providers }) => providers.has(ENGINE)).length;
  if (roots <= 1) return;
  throw new ConfigurationError(
    `IdempotentJobsModule.forRoot() or forRootAsync() is imported ${roots} times in this application. Import it once, in the root module: what it provides is global. Modules that use a queue import IdempotentJobsModule.registerQueue() only.`,
  );
}

function assemble(
  dataSourceName: string | undefined,
  options: Provider,
  imports: DynamicModule['imports'] = [],
): DynamicModule {
  const dataSource = getDataSourceToken(dataSourceName);
  const providers: Provider[] = [
    options,
    TenantContext,
    TenantMiddleware,
    JobEvents,
    IdempotencyInterceptor,
    {
      provide: ENGINE,
      inject: [dataSource, RESOLVED_OPTIONS, TenantContext, JobEvents, ModulesContainer],
      useFactory: async (
        source: DataSource,
        resolved: ResolvedOptions,
        tenants: TenantContext,
        events: JobEvents,
        modules: ModulesContainer,
      ) => {
        refuseSecondRoot(modules);
        const engine = assembleEngine(source, resolved, tenants, events);
        await prepareLedger(engine.database, resolved, engine.log.trouble);
        return engine;
      },
    },
    { provide: QueueRegistry, inject: [ENGINE], useFactory: (engine: Engine) => engine.queues },
    {
      provide: ProcessorHost,
      inject: [ENGINE, ExternalContextCreator, ApplicationConfig],
      useFactory: (engine: Engine, contexts: ExternalContextCreator, config: ApplicationConfig) =>
        new ProcessorHost(engine.pipeline, new EnhancerChains(contexts, config), engine.log),
    },
    {
      provide: Doctor,
      inject: [ENGINE, RESOLVED_OPTIONS, DiscoveryService],
      useFactory: (engine: Engine, resolved: ResolvedOptions, discovery: DiscoveryService) =>
        new Doctor(() => ({
          ...describeApp(discovery, engine.queues, resolved, engine.dependencies),
          sharedKeys: engine.sharedKeys.found,
        })),
    },
    {
      provide: ApplicationLifecycle,
      inject: [ENGINE, RESOLVED_OPTIONS, JobEvents, DiscoveryService, ProcessorHost, TenantContext, Doctor],
      useFactory: (
        engine: Engine,
        resolved: ResolvedOptions,
        events: JobEvents,
        discovery: DiscoveryService,
        host: ProcessorHost,
        tenants: TenantContext,
        doctor: Doctor,
      ) => {
        const { database, log } = engine;
        const checkUp = new CheckUp(doctor, new QueueDirectory(database), resolved.doctor, log);
        return new ApplicationLifecycle(engine, resolved, events, discovery, host, tenants, checkUp);
      },
    },
    {
      provide: OutcomeService,
      inject: [ENGINE, JobEvents, TenantContext],
      useFactory: (engine: Engine, events: JobEvents, tenants: TenantContext) =>
        new OutcomeService(engine.database, events, tenants, engine.sealer, engine.settler),
    },
    { provide: IdempotencyService, inject: [ENGINE], useFactory: (engine: Engine) => engine.idempotency },
    {
      provide: DependencyGuard,
      inject: [ENGINE],
      useFactory: (engine: Engine) => new DependencyGuard(engine.dependencies),
    },
    { provide: DeadLetterService, inject: [ENGINE], useFactory: (engine: Engine) => engine.deadLetters },
    {
      provide: RetentionService,
      inject: [ENGINE, ApplicationLifecycle, TenantContext],
      useFactory: (engine: Engine, lifecycle: ApplicationLifecycle, tenants: TenantContext) =>
        new RetentionService(
          engine.pruner,
          new Erasure(engine.database, () => lifecycle.erasableQueues()),
          tenants,
        ),
    },
    {
      provide: DispatchService,
      inject: [ENGINE, TenantContext],
      useFactory: ({ database, dispatcher, queues }: Engine, tenants: TenantContext) =>
        new DispatchService(
          database,
          () => dispatcher.wake(),
          () => queues.names,
          tenants,
        ),
    },
    {
      provide: IdempotentJobsHealthIndicator,
      inject: [ENGINE, ApplicationLifecycle],
      useFactory: (engine: Engine, lifecycle: ApplicationLifecycle) =>
        new IdempotentJobsHealthIndicator(engine, () => lifecycle.running),
    },
  ];
  return {
    module: IdempotentJobsModule,
    global: true,
    imports: [DiscoveryModule, ...imports],
    providers,
    exports: [
      RESOLVED_OPTIONS,
      TenantContext,
      TenantMiddleware,
      JobEvents,
      IdempotencyInterceptor,
      QueueRegistry,
      ProcessorHost,
      OutcomeService,
      IdempotencyService,
      DependencyGuard,
      DeadLetterService,
      RetentionService,
      DispatchService,
      IdempotentJobsHealthIndicator,
      Doctor,
    ],
  };
}
