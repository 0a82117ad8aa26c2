import { BullModule, getQueueToken, getSharedConfigToken, type RegisterQueueOptions } from '@nestjs/bullmq';
import { type DynamicModule, Inject, Module, type Provider } from '@nestjs/common';
import { DiscoveryModule } from '@nestjs/core';
import { getDataSourceToken } from '@nestjs/typeorm';
import type { Queue, QueueOptions } from 'bullmq';
import { type AsyncOptions, asyncProviders } from '../option-checks/async-options.js';
import { prefixOf } from '../bullmq/queue-prefix.js';
import { DEAD_LETTER_QUEUE_SUFFIX } from '../operation/dead-letter-message.js';
import { QueueRegistry } from '../producer/queue-registry.js';
import {
  type IdempotentJobsAsyncOptions,
  type IdempotentJobsOptions,
  resolveOptions,
} from './idempotent-jobs.options.js';
import { RESOLVED_OPTIONS } from '../option-checks/resolved-options.token.js';
import type { RetentionOptions } from '../ledger/retention.options.js';
import { databaseProvider, PARTS, PUBLIC } from './providers.js';

/** The names of a queue of idempotent jobs and of its dead-letter queue. */
interface QueueNames {
  readonly name: string;
  /**
   * Where its dead letters are announced. Default: the name with `-dlq`. Read by `@OnDeadLetter()` or by a processor, not
   * both.
   */
  readonly deadLetterQueue?: string;
}

/** Options of a queue that may be known only once the application starts. */
export interface UnnamedQueueOptions {
  /** How long the queue's operations and letters are kept. Default: the module's retention. */
  readonly retention?: RetentionOptions;
  /**
   * Lets one BullMQ job carry many operations in a flood: up to `max` of them (2 to 100), and no more than a tenth of what
   * is put at one time. Each operation is still claimed, run, retried and recorded by itself. For short handlers that need
   * nothing of a BullMQ job but its name and data. Default: each operation has a job of its own.
   */
  readonly bundle?: { readonly max: number };
  /**
   * BullMQ's and @nestjs/bullmq's own options for both queues: connection, prefix, configKey, defaultJobOptions … On a Redis
   * Cluster the prefix must have a hash tag, e.g. `{mails}`; by default it is `{bull}` there.
   */
  readonly bullmq?: Omit<RegisterQueueOptions, 'name' | 'processors'>;
}

/** A queue of idempotent jobs. */
export interface IdempotentQueueOptions extends QueueNames, UnnamedQueueOptions {}

/** A queue of idempotent jobs whose options come from `useFactory`, `useClass` or `useExisting`. */
export interface IdempotentQueueAsyncOptions
  extends QueueNames, AsyncOptions<UnnamedQueueOptions, IdempotentQueueOptionsFactory> {
  /** The `configKey` of `BullModule.forRoot()` whose configuration both queues share. Default: the one without a key. */
  readonly configKey?: string;
}

/** Implemented by the class that `registerQueueAsync({ useClass })` or `registerQueueAsync({ useExisting })` names. */
export interface IdempotentQueueOptionsFactory {
  createIdempotentQueueOptions(queue: string): UnnamedQueueOptions | Promise<UnnamedQueueOptions>;
}

/** Injection token of an {@link IdempotentQueue}. */
export function getIdempotentQueueToken(name: string): string {
  return `IdempotentQueue_${name}`;
}

/** Injects the {@link IdempotentQueue} of that name. */
export function InjectIdempotentQueue(name: string): ParameterDecorator & PropertyDecorator {
  return Inject(getIdempotentQueueToken(name));
}

/**
 * The module. Import `forRoot` once in the application (a second one is refused at boot), and `registerQueue` wherever a
 * queue is used. The application also needs `TypeOrmModule` with a Postgres DataSource, and `BullModule.forRoot`.
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
      named.map(({ name, deadLetterQueue, retention, bundle, bullmq }: IdempotentQueueOptions) => ({
        name,
        deadLetterQueue,
        configKey: bullmq?.configKey,
        useFactory: () => ({ retention, bundle, bullmq }),
      })),
    );
  }

  /**
   * As {@link registerQueue}, with options from a factory or a class. Names are given outside of it, because Nest needs
   * them earlier.
   *
   * @throws ConfigurationError without either
   */
  static registerQueueAsync(...queues: IdempotentQueueAsyncOptions[]): DynamicModule {
    return registered(queues);
  }
}

/** The options of `forRootAsync()` before they are checked. */
const GIVEN_OPTIONS = Symbol('nestjs-idempotent-jobs:given-options');

/** Provides the options of queues to two modules, BullMQ's and ours, which need the same ones. */
@Module({})
class QueueOptionsModule {}

function registered(queues: readonly IdempotentQueueAsyncOptions[]): DynamicModule {
  const registrations = queues.map(
    ({ name, deadLetterQueue = name + DEAD_LETTER_QUEUE_SUFFIX, configKey, imports = [], ...source }) => {
      const token = `IdempotentQueueSettings_${name}`;
      const settings: DynamicModule = {
        module: QueueOptionsModule,
        imports,
        providers: asyncProviders(token, `registerQueueAsync() of queue "${name}"`, source, (factory) =>
          factory.createIdempotentQueueOptions(name),
        ),
        exports: [token],
      };
      const bullQueues = [name, deadLetterQueue].map((bullName) => ({
        name: bullName,
        configKey,
        imports: [settings],
        inject: [token, { token: getSharedConfigToken(configKey), optional: true }],
        useFactory: (own?: UnnamedQueueOptions, shared?: SharedOptions) =>
          queueOptions(bullName, own?.bullmq, shared),
      }));
      const provider = {
        provide: getIdempotentQueueToken(name),
        inject: [QueueRegistry, getQueueToken(name), getQueueToken(deadLetterQueue), token],
        useFactory: (registry: QueueRegistry, queue: Queue, letters: Queue, own?: UnnamedQueueOptions) =>
          registry.register(queue, letters, own),
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

/** What `BullModule.forRoot()` is given. */
type SharedOptions = Partial<QueueOptions>;

/**
 * The options of a BullMQ queue. Its workers and event listeners, of this library and of @nestjs/bullmq, take their
 * connection and prefix from them.
 */
function queueOptions(
  name: string,
  own: UnnamedQueueOptions['bullmq'],
  shared: SharedOptions | undefined,
): RegisterQueueOptions {
  const prefix = prefixOf(name, { ...shared, ...own });
  // The name is fixed already, whatever else the options contain.
  return { ...own, ...(prefix !== undefined && { prefix }), name };
}

function assemble(
  dataSourceName: string | undefined,
  options: readonly Provider[],
  imports: DynamicModule['imports'] = [],
): DynamicModule {
  return {
    module: IdempotentJobsModule,
    global: true,
    imports: [DiscoveryModule, ...imports],
    providers: [...options, databaseProvider(getDataSourceToken(dataSourceName)), ...PARTS, ...PUBLIC],
    exports: [RESOLVED_OPTIONS, ...PUBLIC],
  };
}
