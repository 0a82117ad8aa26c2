import type { Job } from 'bullmq';
import {
  jobIdOf,
  type OperationIdentity,
  operationKeyProblem,
  tenantIdProblem,
} from '../operation/identity.js';
import { type Envelope, isEnvelope } from './envelope.js';
import { iterationOf, iterationTimeOf } from './schedule.js';

/**
 * Whose words a job's data is, as far as its id confirms it. The one gate through which everything goes that reads an
 * envelope: whoever can have their own data put on a queue can have it look like one.
 *
 * - `ours`: the id was derived from the tenant and key that the envelope names. With `dueAt`, it is one iteration of a
 *   schedule, `identity` is the iteration's, and `dueAt` when it was due.
 * - `unconfirmed`: it looks like an envelope, and the id says nothing (`hasDerivedId` false), or something else.
 * - `plain`: it does not look like one.
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

/** Reads nothing but the job's id and data. Never throws. */
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
  // The time that is added may make the key too long.
  return isIdentity(identity) ? { kind: 'ours', envelope: data, identity, dueAt } : unconfirmed(id, data);
}

function unconfirmed(id: string, envelope: Envelope): Provenance {
  return { kind: 'unconfirmed', envelope, hasDerivedId: DERIVED_ID.test(id) };
}

const PLAIN: Provenance = { kind: 'plain' };

/** An id that the library derived: a digest of tenant and key; jobs put again and flow nodes add a suffix, schedules a time. */
const DERIVED_ID = /^(?:repeat:)?op-[\w-]{43}(?:$|[-:])/;

function isIdentity({ tenantId, operationKey }: OperationIdentity): boolean {
  return tenantIdProblem(tenantId) === undefined && operationKeyProblem(operationKey) === undefined;
}
