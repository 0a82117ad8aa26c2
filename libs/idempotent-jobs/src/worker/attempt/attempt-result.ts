import { type Rejection, DependencyRejectedError } from '../../resilience/dependency/rejection.js';
import type { RejectionCause, AbandonedBy, DeferralCause } from '../../operation/reasons.js';
import { RecordUnreadableError } from '../../operation/errors.js';
import { messageOf } from '../../operation/message-of.js';
import { isA } from '../../operation/thrown.js';
import type { Failure } from '../../operation/failure.js';
import type { NextStep } from '../rules/decide.js';

/** How an attempt to run an operation ended. This is a closed set: each of them has one acknowledgement. */
export type AttemptResult =
  | { readonly kind: 'completed'; readonly result: unknown; readonly degraded: string | undefined }
  /** It had completed before; the handler was not called. */
  | { readonly kind: 'replayed'; readonly result: unknown; readonly degraded: string | undefined }
  | {
      readonly kind: 'failed';
      readonly error: unknown;
      readonly failure: Failure;
      readonly nextStep: NextStep;
    }
  /** The operation cannot be run for this job: the key is another's, or it is dead or in doubt. */
  | { readonly kind: 'conflict' | 'dead' | 'in_doubt' | 'expired' | 'unstorable'; readonly error: Error }
  | Deferred
  /** The handler has arranged by BullMQ's own means what becomes of its job. No attempt was spent. */
  | { readonly kind: 'handed_back'; readonly error: unknown };

/** Not now. No attempt was spent. */
export interface Deferred {
  readonly kind: 'deferred';
  readonly delayMs: number;
  readonly deferral: Deferral;
  /** The deferral, a colon, and what happened, for people. */
  readonly detail: string;
  /** What a dependency said that lets nothing through; undefined for every other deferral. */
  readonly rejection?: Rejection | undefined;
}

const CAUSES = {
  busy: 'busy',
  fenced: 'fenced',
  not_yet: 'not_yet',
  in_doubt: 'not_yet',
  waiting: 'waiting',
  ledger_unavailable: 'unavailable',
  record_unreadable: 'unavailable',
  circuit_open: 'held',
  bulkhead_full: 'held',
  retry_budget_spent: 'held',
  timeout: 'stopped',
  lease_lost: 'stopped',
  cancelled: 'stopped',
  shutdown: 'stopped',
  not_started: 'stopped',
} as const satisfies Record<RejectionCause | AbandonedBy, DeferralCause> & Record<string, DeferralCause>;

/** Why a delivery is put off, as a closed list. */
export type Deferral = keyof typeof CAUSES;

/** Why the library itself, and no dependency, puts a delivery off. */
export type OwnDeferral = Exclude<Deferral, RejectionCause>;

/** What a deferral comes down to. */
export function causeOf(deferral: OwnDeferral): Exclude<DeferralCause, 'held'>;
export function causeOf(deferral: Deferral): DeferralCause;
export function causeOf(deferral: Deferral): DeferralCause {
  return CAUSES[deferral];
}

/** What interceptors around the library's own, and the handlers of steps, are thrown when a delivery is put off. */
export function errorOf({ delayMs, detail: reason, rejection: rejection }: Deferred): Error {
  return rejection === undefined
    ? new OperationDeferred(reason)
    : new DependencyRejectedError({ ...rejection, retryAfterMs: delayMs });
}

/** Why nothing can be said about an operation for now: an unreadable record may be read once its key has arrived. */
export function unavailability(error: unknown): { readonly deferral: OwnDeferral; readonly detail: string } {
  const deferral = isA(error, RecordUnreadableError) ? 'record_unreadable' : 'ledger_unavailable';
  return { deferral, detail: `${deferral}: ${messageOf(error)}` };
}

/** What interceptors around the library's own see when a delivery is put off. BullMQ never does. */
export class OperationDeferred extends Error {
  override readonly name = 'OperationDeferred';
}
