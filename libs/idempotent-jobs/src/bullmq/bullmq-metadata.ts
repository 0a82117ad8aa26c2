import type { WorkerOptions } from 'bullmq';
import type { InstanceWrapper } from '@nestjs/core/injector/instance-wrapper.js';

/** A class, reduced to its name and its decorators' metadata. */
export interface ProvidedClass {
  readonly name: string;
  readonly prototype: object;
}

/** The class of a provider's instance. Undefined for values and for factories whose result has no class. */
export function providedClassOf(provider: InstanceWrapper): ProvidedClass | undefined {
  const isFromFactory = !provider.metatype || provider.inject;
  const providedClass = isFromFactory
    ? (provider.instance as object | undefined)?.constructor
    : provider.metatype;
  return typeof providedClass === 'function' ? providedClass : undefined;
}

/** The metadata keys of `@Processor()` of @nestjs/bullmq. The package does not export them; a spec pins them. */
const PROCESSOR_METADATA = 'bullmq:processor_metadata';
const WORKER_METADATA = 'bullmq:worker_metadata';

/** The queue of a class with `@Processor()` or `@IdempotentProcessor()`. Undefined for any other class. */
export function processedQueueOf(processorClass: ProvidedClass): string | undefined {
  const processor = Reflect.getMetadata(PROCESSOR_METADATA, processorClass) as { name?: string } | undefined;
  return processor?.name;
}

/** The worker options that were given to the decorator. */
export function workerOptionsOf(processorClass: ProvidedClass): Partial<WorkerOptions> {
  return (Reflect.getMetadata(WORKER_METADATA, processorClass) ?? {}) as Partial<WorkerOptions>;
}
