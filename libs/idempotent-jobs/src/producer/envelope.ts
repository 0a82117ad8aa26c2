import {
  type OperationIdentity,
  jobIdOf,
  operationKeyProblem,
  tenantIdProblem,
} from '../operation/identity.js';
import type { Job } from 'bullmq';
import { iterationOf, iterationTimeOf } from './schedule.js';

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

/**
 * Who wrote a job's data, as far as its id confirms it. Every reader of an envelope goes through this check, because a
 * producer that puts its own data on a queue can make it look like an envelope.
 *
 * - `ours`: the id was derived from the tenant and key that the envelope names. With `dueAt`, the job is one iteration of
 *   a schedule: `identity` is the iteration's, and `dueAt` is when it was due.
 * - `unconfirmed`: it looks like an envelope, but the id does not say so (`hasDerivedId` false) or names another
 *   operation.
 * - `plain`: it does not look like an envelope.
 */
export type Provenance =
  | {
      readonly kind: 'ours';
      readonly envelope: Envelope;
      readonly identity: OperationIdentity;
      readonly dueAt: Date | undefined;
    }
  | { readonly kind: 'unconfirmed'; readonly envelope: Envelope; readonly hasDerivedId: boolean }
  | { readonly kind: 'plain' };

/** Reads only the job's id and data. Never throws. */
export function provenanceOf({ id = '', data }: Pick<Job, 'id' | 'data'>): Provenance {
  if (!isEnvelope(data)) return PLAIN;
  const { operation } = data;
  if (!DERIVED_ID.test(id) || !isIdentity(operation)) return unconfirmed(id, data);
  const { tenantId, operationKey } = operation;
  const named = { tenantId, operationKey };
  const stem = jobIdOf(named);
  if (operation.isSchedule !== true) {
    const isOwn = id === stem || id.startsWith(`${stem}-`);
    return isOwn
      ? { kind: 'ours', envelope: data, identity: named, dueAt: undefined }
      : unconfirmed(id, data);
  }
  const dueAt = iterationTimeOf(id, stem);
  if (dueAt === undefined) return unconfirmed(id, data);
  const identity = iterationOf(named, dueAt);
  // The added time may make the key too long.
  return isIdentity(identity) ? { kind: 'ours', envelope: data, identity, dueAt } : unconfirmed(id, data);
}

function unconfirmed(id: string, envelope: Envelope): Provenance {
  return { kind: 'unconfirmed', envelope, hasDerivedId: DERIVED_ID.test(id) };
}

const PLAIN: Provenance = { kind: 'plain' };

/** An id derived from tenant and key. Jobs that are put again and flow nodes have a suffix, iterations a time. */
const DERIVED_ID = /^(?:repeat:)?op-[\w-]{43}(?:$|[-:])/;

function isIdentity({ tenantId, operationKey }: OperationIdentity): boolean {
  return tenantIdProblem(tenantId) === undefined && operationKeyProblem(operationKey) === undefined;
}
