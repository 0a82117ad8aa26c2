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
  const { jobName, jobId, priority, delayMs = 0, deadline } = operation;
  const envelope = envelopeOf(operation, {
    ...(rowMs !== undefined && { row: Math.floor(rowMs) }),
    ...(deadline !== undefined && { deadlineAt: deadline.toISOString() }),
    ...(redriveTrace !== undefined && { redriveTrace }),
  });
  return {
    name: jobName,
    jobId,
    data: signed(envelope, operation, signer, Date.now() + delayMs),
    delayMs,
    priority,
    wasPut,
    trace: redriveTrace ?? envelope.operation.trace,
  };
}

/** The envelope of each of a schedule's jobs. The key is completed with the iteration's time when the job is read. */
export function scheduleEnvelope(requested: RequestedOperation, signer: Signer): Envelope {
  // Signed for time 0, because an iteration's own time is in its job id.
  return signed(envelopeOf(requested, { isSchedule: true }), requested, signer, 0);
}

function envelopeOf(
  { tenantId, operationKey, fingerprint, trace, retryPolicy, payload }: RequestedOperation,
  more: Partial<Envelope['operation']>,
): Envelope {
  return {
    operation: {
      tenantId,
      operationKey,
      fingerprint,
      ...(trace !== undefined && { trace: JSON.parse(trace) }),
      ...(retryPolicy !== undefined && { retryPolicy }),
      ...more,
    },
    payload: JSON.parse(payload),
  };
}

/** The envelope with its signature, where jobs are signed. `at`: when the job may first run, in ms since 1970. */
function signed(
  envelope: Envelope,
  { queue, jobName, fingerprint }: RequestedOperation,
  signer: Signer,
  at: number,
): Envelope {
  const { operation } = envelope;
  const signature = signer.sign({ queue, jobName, fingerprint, operation }, Math.floor(at));
  return signature === undefined ? envelope : { ...envelope, signature };
}
