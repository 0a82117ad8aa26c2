import type { Job } from 'bullmq';
import type { ProcessorSettings } from './processor.settings.js';

/** One delivery of a job by BullMQ to a processor. */
export interface Delivery {
  readonly job: Job;
  /** BullMQ's own signal; undefined where BullMQ gives none (request-scoped processors). */
  readonly cancellation: AbortSignal | undefined;
  readonly processor: ProcessorSettings;
  /** Names this run: process and running number. */
  readonly workerId: string;
}
