import { RecordUnreadableError } from '../operation/errors.js';
import { messageOf } from '../operation/message-of.js';
import type { Failure } from '../resilience/failure.js';
import type { Decision } from '../settle/decide.js';

/** How an attempt to run an operation ended. A closed set: each has one settlement. */
export type Ending =
  | { readonly kind: 'completed'; readonly result: unknown; readonly degraded: string | undefined }
  /** It had completed before; the handler was not called. */
  | { readonly kind: 'replayed'; readonly result: unknown; readonly degraded: string | undefined }
  | {
      readonly kind: 'failed';
      readonly error: unknown;
      readonly failure: Failure;
      readonly decision: Decision;
    }
  /** The operation cannot be run for this job: the key is another's, or it is dead or in doubt. */
  | { readonly kind: 'conflict' | 'dead' | 'in_doubt' | 'expired'; readonly error: Error }
  /** Not now. No attempt was spent. */
  | {
      readonly kind: 'deferred';
      readonly delayMs: number;
      readonly reason: string;
      readonly why: DeferralCause;
      readonly error: Error;
    }
  | { readonly kind: 'handed_back'; readonly error: unknown };

/**
 * Somebody else has it, or has taken it over; its time has not come; one of its steps is not finished; the ledger cannot be
 * asked; its dependency lets nothing through; or it was stopped from here, with the worker or without.
 */
export type DeferralCause = 'busy' | 'fenced' | 'not_yet' | 'waiting' | 'unavailable' | 'held' | 'stopped';

/** A delivery that is put off. */
export function deferred(
  delayMs: number,
  reason: string,
  why: DeferralCause,
  error: Error = new OperationDeferred(reason),
): Ending {
  return { kind: 'deferred', delayMs, reason, why, error };
}

/** Why nothing can be said about an operation for now: an unreadable record may be read once its key has arrived. */
export function whyPutOff(error: unknown): string {
  const kind = error instanceof RecordUnreadableError ? 'record_unreadable' : 'ledger_unavailable';
  return `${kind}: ${messageOf(error)}`;
}

/** What interceptors around the library's own see when a delivery is put off. BullMQ never does. */
export class OperationDeferred extends Error {
  override readonly name = 'OperationDeferred';
}
