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
import { type AsyncOptions, asyncProviders } from './async-options.js';
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

/** A queue of idempotent jobs, with the queue of its dead letters. */
interface QueueNames {
  readonly name: string;
  /** Where its dead letters are announced. Default: the name with `-dlq`. Read it with `@OnDeadLetter()`, or with a processor, not both. */
  readonly deadLetterQueue?: string;
}

/** What a queue of idempotent jobs may have that is known only once the application starts. */
export interface IdempotentQueueSettings {
  /** How long the queue's operations and letters are kept. Default: the module's retention. */
  readonly retention?: RetentionOptions;
  /** BullMQ's and @nestjs/bullmq's own options for both queues: connection, prefix, configKey, defaultJobOptions … */
  readonly bullmq?: Omit<RegisterQueueOptions, 'name' | 'processors'>;
}

/** A queue of idempotent jobs. */
export interface IdempotentQueueOptions extends QueueNames, IdempotentQueueSettings {}

/** A queue of idempotent jobs whose settings come from `useFactory`, `useClass` or `useExisting`. */
export interface IdempotentQueueAsyncOptions
  extends QueueNames, AsyncOptions<IdempotentQueueSettings, IdempotentQueueSettingsFactory> {
  /** The `configKey` of `BullModule.forRoot()` whose configuration both queues share. Default: the one without a key. */
  readonly configKey?: string;
}

/** What `registerQueueAsync({ useClass })` and `registerQueueAsync({ useExisting })` name. */
export interface IdempotentQueueSettingsFactory {
  createIdempotentQueueSettings(queue: string): IdempotentQueueSettings | Promise<IdempotentQueueSettings>;
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
    return assemble(options.dataSource, [
      { provide: RESOLVED_OPTIONS, useFactory: () => resolveOptions(options) },
    ]);
  }

  /** As {@link forRoot}, with options from a factory or a class. @throws ConfigurationError without either */
  static forRootAsync({ imports = [], dataSource, ...options }: IdempotentJobsAsyncOptions): DynamicModule {
    const providers = asyncProviders(GIVEN_OPTIONS, 'forRootAsync()', options, (factory) =>
      factory.createIdempotentJobsOptions(),
    );
    const resolved = { provide: RESOLVED_OPTIONS, inject: [GIVEN_OPTIONS], useFactory: resolveOptions };
    return assemble(dataSource, [...providers, resolved], imports);
  }

  /** Registers queues with BullMQ, their dead-letter queues, and an {@link IdempotentQueue} for each. */
  static registerQueue(...queues: (string | IdempotentQueueOptions)[]): DynamicModule {
    const named = queues.map((queue) => (typeof queue === 'string' ? { name: queue } : queue));
    return registered(
      named.map(({ name, deadLetterQueue, retention, bullmq = {} }: IdempotentQueueOptions) => ({
        name,
        deadLetterQueue,
        configKey: bullmq.configKey,
        useFactory: () => ({ retention, bullmq }),
      })),
    );
  }

  /**
   * As {@link registerQueue}, with settings from a factory or a class. Names stay outside of it, because Nest needs them
   * earlier.
   *
   * @throws ConfigurationError without either
   */
  static registerQueueAsync(...queues: IdempotentQueueAsyncOptions[]): DynamicModule {
    return registered(queues);
  }
}

/** What `forRootAsync()` is given, before it is checked. */
const GIVEN_OPTIONS = Symbol('nestjs-idempotent-jobs:given-options');

/** The settings of queues. BullMQ's queues and ours, in other modules, need the same ones. */
@Module({})
class QueueSettingsModule {}

function registered(queues: readonly IdempotentQueueAsyncOptions[]): DynamicModule {
  const registrations = queues.map(
    ({ name, deadLetterQueue = name + DEAD_LETTER_QUEUE_SUFFIX, configKey, imports = [], ...source }) => {
      const token = `IdempotentQueueSettings_${name}`;
      const settings: DynamicModule = {
        module: QueueSettingsModule,
        imports,
        providers: asyncProviders(token, `registerQueueAsync() of queue "${name}"`, source, (factory) =>
          factory.createIdempotentQueueSettings(name),
        ),
        exports: [token],
      };
      const bullQueues = [name, deadLetterQueue].map((bullName) => ({
        name: bullName,
        configKey,
        imports: [settings],
        inject: [token],
        useFactory: ({ bullmq = {} }: IdempotentQueueSettings) => bullmq,
      }));
      const provider = {
        provide: getIdempotentQueueToken(name),
        inject: [QueueRegistry, getQueueToken(name), getQueueToken(deadLetterQueue), token],
        useFactory: (registry: QueueRegistry, queue: Queue, letters: Queue, own: IdempotentQueueSettings) =>
          registry.register(queue, letters, own.retention),
      };
      return { settings, bullQueues, provider };
    },
  );
  const bullModule = BullModule.registerQueueAsync(...registrations.flatMap(({ bullQueues }) => bullQueues));
  const providers = registrations.map(({ provider }) => provider);
  return {
    module: IdempotentJobsModule,
    imports: [bullModule, ...registrations.map(({ settings }) => settings)],
    providers,
    exports: [...providers.map(({ provide }) => provide), bullModule],
  };
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
  options: readonly Provider[],
  imports: DynamicModule['imports'] = [],
): DynamicModule {
  const dataSource = getDataSourceToken(dataSourceName);
  const providers: Provider[] = [
    ...options,
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
