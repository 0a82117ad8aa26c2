import type { Delivery } from './delivery.js';
import type { Identified } from '../identify/identify.js';
import { identityAttributes, queueAttributes } from '../../tracing/attributes.js';
import { OperationSpan } from '../attempt/operation-span.js';
import type { Tracing } from '../../tracing/tracing.js';

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
