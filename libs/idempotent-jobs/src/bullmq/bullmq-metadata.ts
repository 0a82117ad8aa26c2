import type { WorkerOptions } from 'bullmq';
import type { ProvidedClass } from './provided-class.js';

/** What `@Processor()` of @nestjs/bullmq leaves on a class. The package does not export its keys; a spec pins them. */
const PROCESSOR_METADATA = 'bullmq:processor_metadata';
const WORKER_METADATA = 'bullmq:worker_metadata';

/** The queue that a class with `@Processor()`, and so with `@IdempotentProcessor()`, works on; undefined without one. */
export function processedQueueOf(processorClass: ProvidedClass): string | undefined {
  const processor = Reflect.getMetadata(PROCESSOR_METADATA, processorClass) as { name?: string } | undefined;
  return processor?.name;
}

/** The worker options that were given to the decorator. */
export function workerOptionsOf(processorClass: ProvidedClass): Partial<WorkerOptions> {
  return (Reflect.getMetadata(WORKER_METADATA, processorClass) ?? {}) as Partial<WorkerOptions>;
}
