import type { Job } from 'bullmq';
import type { HandlerMeans } from '../attempt/operation-run.js';
import type { HandlerRun } from '../attempt/handler-run.js';
import type { Provenance } from '../../producer/envelope.js';
import type { ProcessorRules } from '../rules/operation-rules.js';
import type { Identified } from '../identify/identify.js';
import { identityAttributes, queueAttributes } from '../../tracing/attributes.js';
import { OperationSpan } from '../attempt/operation-span.js';
import type { Tracing } from '../../tracing/tracing.js';
import { UsageError } from '../../operation/errors.js';

/** A job that BullMQ has delivered, or has failed without delivering it, and the rules of its processor. */
export interface ReceivedJob {
  readonly job: Job;
  /** Read when the job arrived, because its data is replaced by the handler's payload later. */
  readonly provenance: Provenance;
  readonly rules: ProcessorRules;
  /** The run id: host, process and a running number. */
  readonly runId: string;
}

/** One delivery of a job by BullMQ to a processor. */
export interface Delivery extends ReceivedJob, HandlerMeans {
  /** BullMQ's token of this worker's lock on the job. */
  readonly token: string | undefined;
  /** Calls `process()`. */
  readonly handler: (run: HandlerRun) => Promise<unknown>;
  /**
   * Calls the guards, the interceptors and `process()`, with the library's own interceptor between the guards and the
   * others. Undefined when the library's interceptor is the only one: it is not called then.
   */
  readonly guarded: ((run: HandlerRun) => Promise<unknown>) | undefined;
}

/**
 * Runs a delivery in its span. The span belongs to the trace in which the operation was asked for; where it cannot (an
 * iteration of a schedule, a redriven operation), it is linked to that trace.
 */
export function inDeliverySpan<T>(
  tracing: Tracing,
  { job, rules, runId }: Delivery,
  identified: Identified,
  work: (span: OperationSpan) => Promise<T>,
): Promise<T> {
  const { trace, parentTrace } = identified;
  const attributes = {
    ...queueAttributes(job.queueName, 'process', 'process'),
    'messaging.message.id': job.id,
    ...identityAttributes(identified),
    'idempotent_jobs.job_name': job.name,
    'idempotent_jobs.effect': rules.effect,
    'idempotent_jobs.run_id': runId,
  };
  return tracing.span(
    {
      name: `process ${job.queueName}`,
      kind: 'consumer',
      attributes,
      parent: parentTrace,
      links: trace === undefined || trace === parentTrace ? [] : [trace],
    },
    (span) => work(new OperationSpan(tracing, span)),
  );
}

/**
 * Turns a job into what its handler sees: `data` becomes the validated payload. BullMQ writes a job's data only when it
 * is added or updated, so the stored envelope stays. Updating it is refused, because it would make another operation of
 * the job.
 */
export function presentPayload(job: Job, payload: unknown): void {
  job.data = payload;
  job.updateData = refuseUpdate;
}

/** Removes a job's data from BullMQ. For jobs that are never to be run. */
export async function removePayload(job: Job): Promise<void> {
  const { updateData } = Object.getPrototypeOf(job) as Pick<Job, 'updateData'>;
  await updateData.call(job, {});
}

function refuseUpdate(): Promise<never> {
  return Promise.reject(
    new UsageError(
      'job.updateData() would turn this operation into another one: its payload is part of its identity. Keep progress with job.updateProgress(), or in your own tables.',
    ),
  );
}
