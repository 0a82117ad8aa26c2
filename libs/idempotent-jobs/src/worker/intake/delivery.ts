import type { Job } from 'bullmq';
import type { HandlerMeans } from '../attempt/operation-run.js';
import type { HandlerRun } from '../attempt/handler-run.js';
import type { Provenance } from '../../producer/provenance.js';
import type { OperationRules } from '../rules/operation-rules.js';

/** A job that BullMQ has handed over, or has failed without doing so, and the rules of its processor. */
export interface ReceivedJob {
  readonly job: Job;
  /** Read when the job arrived: its data is replaced by what the handler shall see. */
  readonly provenance: Provenance;
  readonly rules: OperationRules;
  /** Names this run: process and running number. */
  readonly runId: string;
}

/** One delivery of a job by BullMQ to a processor. */
export interface Delivery extends ReceivedJob, HandlerMeans {
  /** By which BullMQ knows that the job is this worker's. */
  readonly token: string | undefined;
  /** BullMQ's own signal; undefined where BullMQ gives none (request-scoped processors). */
  readonly cancellation: AbortSignal | undefined;
  /** Calls `process()`. */
  readonly handler: (run: HandlerRun) => Promise<unknown>;
  /**
   * Calls the guards, the interceptors and `process()`, with the library's own interceptor between guards and the others.
   * Undefined: the library's is the only one, and is not called.
   */
  readonly guarded: ((run: HandlerRun) => Promise<unknown>) | undefined;
}
