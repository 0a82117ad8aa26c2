import type { IdempotentProcessorOptions } from './processor.options.js';

/** What the decorator stores on a class. */
export interface ProcessorDeclaration {
  readonly queue: string;
  readonly options: IdempotentProcessorOptions;
  /** False when the application starts the worker itself: `workerOptions.autorun: false`. */
  readonly isStarted: boolean;
  /** Whether the class has a `reconcile()`. */
  readonly canReconcile: boolean;
  /** Whether it has a `fallback()`. */
  readonly hasFallback: boolean;
  /** Whether the worker options limit how often a job may stall. If not, the policy does. */
  readonly limitsStalls: boolean;
}

/** Metadata key of a {@link ProcessorDeclaration}. */
export const PROCESSOR_DECLARATION = Symbol('nestjs-idempotent-jobs:processor');
