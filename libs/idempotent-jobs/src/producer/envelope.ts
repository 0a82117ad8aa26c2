import type { OperationIdentity } from '../operation/identity.js';

/** What a job carries on the wire: who it is, and what it asks for. */
export interface Envelope {
  readonly operation: OperationIdentity & {
    readonly fingerprint: string;
    /** ISO 8601. */
    readonly deadlineAt?: string;
    readonly trace?: unknown;
    /** The name of the policy it is retried under, unless it is the processor's. */
    readonly retryPolicy?: string;
    /** The trace that its attempts belong to since it was brought back. */
    readonly redriveTrace?: unknown;
    /** The job is one iteration of a schedule, and the key is the schedule's. */
    readonly isSchedule?: true;
    /** When its row was written, in ms since 1970 by the database's clock: it was put from there, and runs with it only. */
    readonly row?: number;
  };
  readonly payload: unknown;
  /** Where jobs are signed. */
  readonly signature?: Signature;
}

/** Vouches for what an envelope says. */
export interface Signature {
  readonly alg: 'HS256';
  /** The key's id. */
  readonly key: string;
  /** When the job may first run, in ms since 1970 by the clock of whoever signed. */
  readonly at: number;
  /** In base64url. */
  readonly mac: string;
}

/** Whether a job's data was written by {@link IdempotentQueue}, as opposed to a producer of another kind. */
export function isEnvelope(data: unknown): data is Envelope {
  if (data === null || typeof data !== 'object' || !('payload' in data) || !('operation' in data))
    return false;
  const { operation } = data as { operation: unknown };
  return operation !== null && typeof operation === 'object' && 'fingerprint' in operation;
}
