import type { OperationIdentity } from '../operation/identity.js';

/** The data of a job on the wire: the operation's identity and what it asks for. */
export interface Envelope {
  readonly operation: OperationIdentity & {
    readonly fingerprint: string;
    /** ISO 8601. */
    readonly deadlineAt?: string;
    readonly trace?: unknown;
    /** The name of its retry policy, unless it is the processor's. */
    readonly retryPolicy?: string;
    /** The trace of its attempts since it was redriven. */
    readonly redriveTrace?: unknown;
    /** Whether the job is an iteration of a schedule; the key is the schedule's then. */
    readonly isSchedule?: true;
    /** When the row it was put from was written, in ms since 1970 by the database's clock. It runs only with that row. */
    readonly row?: number;
  };
  readonly payload: unknown;
  /** Set where jobs are signed. */
  readonly signature?: Signature;
}

/** Vouches for what an envelope says. */
export interface Signature {
  readonly alg: 'HS256';
  /** The key's id. */
  readonly key: string;
  /** When the job may first run, in ms since 1970 by the signer's clock. */
  readonly at: number;
  /** The HMAC, in base64url. */
  readonly mac: string;
}

/** Whether a job's data looks as if {@link IdempotentQueue} had written it, in contrast to another producer's. */
export function isEnvelope(data: unknown): data is Envelope {
  if (data === null || typeof data !== 'object' || !('payload' in data) || !('operation' in data))
    return false;
  const { operation } = data as { operation: unknown };
  return operation !== null && typeof operation === 'object' && 'fingerprint' in operation;
}
