import { getQueueToken } from '@nestjs/bullmq';
import type { DiscoveryService } from '@nestjs/core';
import type { InstanceWrapper } from '@nestjs/core/injector/instance-wrapper.js';
import type { JobsOptions, Queue } from 'bullmq';
import { getMetadataStorage } from 'class-validator';
import type { DependencyRules } from '../../resilience/dependency/dependency.options.js';
import type { Dependencies } from '../../resilience/dependency/dependencies.js';
import type { QueueRegistry } from '../../producer/queue-registry.js';
import type { RetryRules } from '../../worker/rules/retry.options.js';
import {
  processedQueueOf,
  type ProvidedClass,
  providedClassOf,
  workerOptionsOf,
} from '../../bullmq/bullmq-metadata.js';
import {
  PROCESSOR_DECLARATION,
  type ProcessorDeclaration,
  resolveProcessorOptions,
} from '../../worker/rules/processor.options.js';
import { overridden, type ProcessorOverrides } from '../../worker/rules/processor-overrides.js';
import type { PayloadClass } from '../../worker/rules/validate-payload.js';
import { DEFAULT_MAX_RESULT_BYTES } from '../../ledger/record/recorded-result.js';
import { type SigningRules, unsignedUntil } from '../../producer/signer.js';
import type { SharedKey } from '../../worker/intake/shared-keys.js';
import type { Effect } from '../../operation/effect.js';
import type { Retention } from '../../ledger/retention.options.js';

/** What BullMQ does with failed jobs. */
export type RemoveOnFail = JobsOptions['removeOnFail'];

/** A class with `@IdempotentProcessor()`. */
export interface DescribedProcessor {
  readonly name: string;
  readonly queue: string;
  readonly effect: Effect;
  /** Whether the processor declares its effect; false when it got the default. */
  readonly isEffectGiven: boolean;
  readonly timeoutMs: number;
  readonly isTimeoutGiven: boolean;
  readonly attempts: number;
  /** The processor's own, or its dependency's. Undefined when not declared. */
  readonly clientRetries: number | undefined;
  /** The name of its dependency. Undefined when it has none. */
  readonly dependency: string | undefined;
  /** Whether the dependency has a circuit for each key. */
  readonly hasCircuitPerKey: boolean;
  /** The fields of its payload classes that are validated as URLs. */
  readonly urlFields: readonly string[];
  /** Whether it derives tenants from job data, with `identify`. */
  readonly identifies: boolean;
  /** The worker's option. */
  readonly removeOnFail: RemoveOnFail;
}

/** A class with only `@Processor()`, on any queue that is not a dead-letter queue. */
export interface PlainProcessor {
  readonly name: string;
  readonly queue: string;
  readonly attempts: number;
  /** The worker's option, or else the queue's. */
  readonly removeOnFail: RemoveOnFail;
}

/** A queue of `IdempotentJobsModule.registerQueue()`. */
export interface DescribedQueue {
  readonly name: string;
  readonly deadLetterQueue: string;
  readonly retention: Retention;
  readonly removeOnFail: RemoveOnFail;
}

/** A dependency of `forRoot({ dependencies })`. */
interface DescribedDependency {
  readonly name: string;
  /** Undefined when not declared. */
  readonly clientRetries: number | undefined;
  /**
   * Whether its circuit was seen to open on one tenant's failures alone, and to reject others whose calls had succeeded.
   */
  readonly isSharedByTenants: boolean;
}

/** What the doctor needs to know about an application. Plain data. */
export interface AppDescription {
  readonly processors: readonly DescribedProcessor[];
  readonly plainProcessors: readonly PlainProcessor[];
  readonly queues: readonly DescribedQueue[];
  readonly dependencies: readonly DescribedDependency[];
  /** Schedulers for whose iterations `identify` was seen to give the same key. */
  readonly sharedKeys: readonly SharedKey[];
  readonly resolvesTenants: boolean;
  /** ISO 8601. Undefined when jobs are not signed, or must be. */
  readonly unsignedUntil: string | undefined;
  readonly handsOnTrace: boolean;
  readonly logs: 'all' | 'problems' | 'none';
}

/** The application's options that the doctor reads. */
export interface DescribedOptions {
  readonly dependencies: readonly DependencyRules[];
  readonly leaseMs: number;
  readonly logs: AppDescription['logs'];
  readonly processors: ReadonlyMap<string, ProcessorOverrides>;
  readonly resolveTenant: unknown;
  readonly retryPolicies: ReadonlyMap<string, RetryRules>;
  readonly signing: SigningRules | undefined;
  readonly traceContext: (() => unknown) | undefined;
}

/** Describes a running application to the doctor, from what its modules registered and its decorators declare. */
export function describeApp(
  discovery: DiscoveryService,
  queues: QueueRegistry,
  options: DescribedOptions,
  dependencies: Dependencies,
): Omit<AppDescription, 'sharedKeys'> {
  const providers = discovery.getProviders();
  const jobOptionsOf = (queue: string): JobsOptions => defaultJobOptionsOf(providers, queue);
  const classes = providers.map(providedClassOf).filter((provided) => provided !== undefined);
  const deadLetterQueues = new Set(queues.names.map((queue) => queues.deadLetterQueueOf(queue)));
  return {
    processors: classes.flatMap((provided) => describeProcessor(provided, queues, options, dependencies)),
    plainProcessors: classes
      .flatMap((provided) => describePlainProcessor(provided, jobOptionsOf))
      .filter(({ queue }) => !deadLetterQueues.has(queue)),
    queues: queues.names.map((name) => ({
      name,
      deadLetterQueue: queues.deadLetterQueueOf(name),
      retention: queues.retentionOf(name),
      removeOnFail: jobOptionsOf(name).removeOnFail,
    })),
    dependencies: options.dependencies.map(({ name, clientRetries }) => ({
      name,
      clientRetries,
      isSharedByTenants: dependencies.named(name).isSharedByTenants,
    })),
    resolvesTenants: options.resolveTenant !== undefined,
    unsignedUntil: unsignedUntil(options.signing, Date.now()),
    handsOnTrace: options.traceContext !== undefined,
    logs: options.logs,
  };
}

function describeProcessor(
  provided: ProvidedClass,
  queues: QueueRegistry,
  { leaseMs, retryPolicies: policies, processors }: DescribedOptions,
  dependencies: Dependencies,
): DescribedProcessor[] {
  const declaration = Reflect.getOwnMetadata(PROCESSOR_DECLARATION, provided) as
    ProcessorDeclaration | undefined;
  if (declaration === undefined) return [];
  const { queue } = declaration;
  const { options } = overridden(queue, declaration.options, processors.get(queue));
  const { own: rules } = resolveProcessorOptions(
    provided.name,
    { ...declaration, options },
    {
      leaseMs,
      retryPolicies: policies,
      dependencies,
      results: { maxBytes: DEFAULT_MAX_RESULT_BYTES },
      retentionMs: queues.retentionOf(queue).completedMs,
    },
  );
  return [
    {
      name: provided.name,
      queue,
      effect: rules.effect,
      isEffectGiven: options.effect !== undefined,
      timeoutMs: rules.timeoutMs,
      isTimeoutGiven: isTimeoutGiven(options, policies) || rules.dependency?.timeoutMs !== undefined,
      attempts: rules.policy.attempts,
      clientRetries: options.clientRetries ?? rules.dependency?.clientRetries,
      dependency: rules.dependency?.name,
      hasCircuitPerKey: rules.per !== undefined,
      urlFields: urlFieldsOf(payloadClassesIn(options.payload)),
      identifies: options.identify !== undefined,
      removeOnFail: workerOptionsOf(provided).removeOnFail,
    },
  ];
}

function payloadClassesIn(payload: ProcessorDeclaration['options']['payload']): readonly PayloadClass[] {
  if (payload === undefined) return [];
  return typeof payload === 'function' ? [payload] : Object.values(payload);
}

/** The fields of payload classes that are validated as URLs, `@IsUrl()`: addresses that the producer has given. */
function urlFieldsOf(payloads: readonly PayloadClass[]): readonly string[] {
  const fields = payloads.flatMap((payload) =>
    getMetadataStorage()
      .getTargetValidationMetadatas(payload, '', false, false)
      .filter(({ name }) => name === 'isUrl')
      .map(({ propertyName }) => propertyName),
  );
  return [...new Set(fields)];
}

function isTimeoutGiven(
  { timeoutMs, retry }: ProcessorDeclaration['options'],
  policies: DescribedOptions['retryPolicies'],
): boolean {
  const ofPolicy = typeof retry === 'string' ? policies.get(retry)?.timeoutMs : retry?.timeoutMs;
  return (timeoutMs ?? ofPolicy) !== undefined;
}

function describePlainProcessor(
  provided: ProvidedClass,
  jobOptionsOf: (queue: string) => JobsOptions,
): PlainProcessor[] {
  const queue = processedQueueOf(provided);
  if (queue === undefined || Reflect.hasMetadata(PROCESSOR_DECLARATION, provided)) return [];
  const { attempts = 1, removeOnFail } = jobOptionsOf(queue);
  const ofWorker = workerOptionsOf(provided).removeOnFail;
  return [{ name: provided.name, queue, attempts, removeOnFail: ofWorker ?? removeOnFail }];
}

/** Empty for a queue that this process works on without having registered it. */
function defaultJobOptionsOf(providers: readonly InstanceWrapper[], queue: string): JobsOptions {
  const token = getQueueToken(queue);
  const found = providers.find((provider) => provider.token === token)?.instance as Queue | undefined;
  return found?.opts?.defaultJobOptions ?? {};
}
