import type { OutgoingJob } from '../bullmq/queue-port.js';
import type { Signer } from './signer.js';
import type { TraceCarrier } from '../tracing/tracing.js';
import type { Envelope } from './envelope.js';
import type { RequestedOperation } from './operation.store.js';

/** What a job gets besides its operation. */
export interface OutgoingRules {
  readonly signer: Signer;
  /** When the operation's row was written, in ms since 1970. Undefined when the job is not put from a row. */
  readonly rowMs?: number | undefined;
  /** Whether the job has been on its queue before. */
  readonly wasPut?: boolean;
  /** The trace that a redrive began. Undefined when the operation was not redriven. */
  readonly redriveTrace?: TraceCarrier | undefined;
}

/** The BullMQ job that carries an operation. */
export function outgoingJob(
  operation: RequestedOperation,
  { signer, rowMs, wasPut = false, redriveTrace }: OutgoingRules,
): OutgoingJob {
  const { tenantId, operationKey, fingerprint, delayMs = 0, deadline, trace, retryPolicy } = operation;
  const envelope: Envelope = {
    operation: {
      tenantId,
      operationKey,
      fingerprint,
      ...(rowMs !== undefined && { row: Math.floor(rowMs) }),
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
    data: signed(envelope, operation, signer, Date.now() + delayMs),
    delayMs,
    priority: operation.priority,
    wasPut,
    trace: redriveTrace ?? envelope.operation.trace,
  };
}

/** The envelope with its signature, where jobs are signed. `at`: when the job may first run, in ms since 1970. */
export function signed(
  envelope: Envelope,
  { queue, jobName, fingerprint }: Pick<RequestedOperation, 'queue' | 'jobName' | 'fingerprint'>,
  signer: Signer,
  at: number,
): Envelope {
  const { operation } = envelope;
  const signature = signer.sign({ queue, jobName, fingerprint, operation }, Math.floor(at));
  return signature === undefined ? envelope : { ...envelope, signature };
}
