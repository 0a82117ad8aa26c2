import type { OutgoingJob } from '../bullmq/queue-port.js';
import type { TraceCarrier } from '../tracing/tracing.js';
import type { Envelope } from './envelope.js';
import type { AskedOperation } from './operation.store.js';

/** The BullMQ job that carries an operation. `wasPut`: it has been on its queue before; `redriveTrace`: it was brought back. */
export function outgoingJob(
  operation: Omit<AskedOperation, 'delayMs'> & { readonly delayMs: number },
  wasPut = false,
  redriveTrace?: TraceCarrier,
): OutgoingJob {
  const { tenantId, operationKey, fingerprint, deadline, trace, retryPolicy } = operation;
  const data: Envelope = {
    operation: {
      tenantId,
      operationKey,
      fingerprint,
      ...(deadline !== undefined && { deadlineAt: deadline.toISOString() }),
      ...(trace !== undefined && { trace: JSON.parse(trace) }),
      ...(retryPolicy !== undefined && { retryPolicy }),
      ...(redriveTrace !== undefined && { redriveTrace }),
    },
    payload: JSON.parse(operation.payload),
  };
  return {
    name: operation.jobName,
    jobId: operation.jobId,
    data,
    delayMs: operation.delayMs,
    priority: operation.priority,
    wasPut,
    trace: redriveTrace ?? data.operation.trace,
  };
}
