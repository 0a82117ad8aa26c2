import type { Job } from 'bullmq';
import type { Provenance } from '../enqueue/provenance.js';
import type { HoldCause } from '../dependency/hold.js';
import type { CurrentOperation } from '../execute/current-operation.js';
import type { ProcessorSettings } from './processor.settings.js';

/** One delivery of a job by BullMQ to a processor. */
export interface Delivery {
  readonly job: Job;
  /** Read when the job arrived: its data is replaced by what the handler shall see. */
  readonly provenance: Provenance;
  /** BullMQ's own signal; undefined where BullMQ gives none (request-scoped processors). */
  readonly cancellation: AbortSignal | undefined;
  readonly processor: ProcessorSettings;
  /** Whether its handler has handed the job back by BullMQ's own means, when it threw that. Undefined: it has no job. */
  readonly handsBack: ((error: unknown) => boolean) | undefined;
  /** Finds out whether the effect of the last attempt happened; undefined: there is no way. */
  readonly reconcile: ((operation: CurrentOperation) => unknown) | undefined;
  /** Stands in for the dependency while it lets nothing through; undefined: there is nothing that could. */
  readonly fallback: ((operation: CurrentOperation, reason: HoldCause) => unknown) | undefined;
  /** Names this run: process and running number. */
  readonly workerId: string;
}
