import { type Rejection, DependencyRejectedError } from '../../resilience/dependency/rejection.js';
import type { RejectionCause, AbandonedBy, DeferralCause } from '../../operation/reasons.js';
import { RecordUnreadableError } from '../../operation/errors.js';
import { isA } from '../../operation/thrown.js';
import type { Failure } from '../../operation/failure.js';
import type { NextStep } from '../rules/decide.js';

/** How an attempt to run an operation ended. The set is closed: each kind has one acknowledgement. */
export type AttemptResult =
  | { readonly kind: 'completed'; readonly result: unknown; readonly degraded: string | undefined }
  /** The operation had completed before; the handler was not called. */
  | { readonly kind: 'replayed'; readonly result: unknown; readonly degraded: string | undefined }
  | {
      readonly kind: 'failed';
      readonly error: unknown;
      readonly failure: Failure;
      readonly nextStep: NextStep;
    }
  /**
   * The operation cannot be run for this job: its key belongs to another request, or it is dead or in doubt, or its row
   * may be forgotten, or Postgres cannot store it.
   */
  | {
      readonly kind: 'refused';
      readonly reason: 'conflict' | 'dead' | 'in_doubt' | 'expired' | 'unstorable';
      readonly error: Error;
    }
  | Deferred
  /** The handler has handed its job back by BullMQ's own means. No attempt was spent. */
  | { readonly kind: 'handed_back'; readonly error: unknown };

/** The delivery is deferred. No attempt was spent. */
export interface Deferred {
  readonly kind: 'deferred';
  readonly delayMs: number;
  readonly deferral: Deferral;
  /** For people: the deferral, a colon, and what happened. */
  readonly detail: string;
  /** The rejection of the dependency. Undefined when no dependency caused the deferral. */
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
  circuit_open: 'rejected',
  bulkhead_full: 'rejected',
  retry_budget_spent: 'rejected',
  timeout: 'stopped',
  lease_lost: 'stopped',
  cancelled: 'stopped',
  shutdown: 'stopped',
  not_started: 'stopped',
} as const satisfies Record<RejectionCause | AbandonedBy, DeferralCause> & Record<string, DeferralCause>;

/** Why a delivery is deferred, as a closed list. */
export type Deferral = keyof typeof CAUSES;

/** Why the library itself, and no dependency, defers a delivery. */
export type OwnDeferral = Exclude<Deferral, RejectionCause>;

/** The cause that events and metrics name for a deferral. */
export function causeOf(deferral: OwnDeferral): Exclude<DeferralCause, 'rejected'>;
export function causeOf(deferral: Deferral): DeferralCause;
export function causeOf(deferral: Deferral): DeferralCause {
  return CAUSES[deferral];
}

/** The error that steps' handlers, and interceptors around the library's own, get when a delivery is deferred. */
export function errorOf({ delayMs, detail: reason, rejection }: Deferred): Error {
  return rejection === undefined
    ? new OperationDeferred(reason)
    : new DependencyRejectedError({ ...rejection, retryAfterMs: delayMs });
}

/**
 * Why the ledger cannot tell about an operation now. A record may be unreadable only until its encryption key arrives
 * here.
 */
export function unavailability(error: unknown): OwnDeferral {
  return isA(error, RecordUnreadableError) ? 'record_unreadable' : 'ledger_unavailable';
}

/** The error that interceptors around the library's own see when a delivery is deferred. BullMQ never sees it. */
class OperationDeferred extends Error {
  override readonly name = 'OperationDeferred';
}
