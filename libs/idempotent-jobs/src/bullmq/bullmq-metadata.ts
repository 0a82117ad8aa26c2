import type { WorkerOptions } from 'bullmq';
import type { ProvidedClass } from './provided-class.js';

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
