import { RecordUnreadableError } from '../operation/errors.js';
import { messageOf } from '../operation/message-of.js';
import { isA } from '../operation/thrown.js';
import type { HoldCause } from '../dependency/hold.js';
import type { AbandonReason } from '../execute/attempt.js';
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
  | { readonly kind: 'conflict' | 'dead' | 'in_doubt' | 'expired' | 'unstorable'; readonly error: Error }
  /** Not now. No attempt was spent. */
  | {
      readonly kind: 'deferred';
      readonly delayMs: number;
      /** For people. */
      readonly reason: string;
      readonly why: DeferralCause;
      readonly word: DeferralWord;
      readonly error: Error;
    }
  /** The handler has arranged by BullMQ's own means what becomes of its job. No attempt was spent. */
  | { readonly kind: 'handed_back'; readonly error: unknown };

/**
 * Somebody else has it, or has taken it over; its time has not come; one of its steps is not finished; the ledger cannot be
 * asked; its dependency lets nothing through; or it was stopped from here, with the worker or without.
 */
export type DeferralCause = 'busy' | 'fenced' | 'not_yet' | 'waiting' | 'unavailable' | 'held' | 'stopped';

/** The words for why a delivery is put off, a closed list, with what each comes down to. */
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
} as const satisfies Record<HoldCause | AbandonReason, DeferralCause> & Record<string, DeferralCause>;

/** Why a delivery is put off, in a word. */
export type DeferralWord = keyof typeof CAUSES;

/** The words for what the library itself puts off, and no dependency. */
export type OwnDeferralWord = Exclude<DeferralWord, HoldCause>;

/** What a word comes down to, where no dependency is meant. */
export function causeOf(word: OwnDeferralWord): Exclude<DeferralCause, 'held'> {
  return CAUSES[word];
}

/** A delivery that is put off. */
export function deferred(
  delayMs: number,
  reason: string,
  word: DeferralWord,
  error: Error = new OperationDeferred(reason),
): Ending {
  return { kind: 'deferred', delayMs, reason, why: CAUSES[word], word, error };
}

/** Why nothing can be said about an operation for now: an unreadable record may be read once its key has arrived. */
export function whyPutOff(error: unknown): { readonly word: OwnDeferralWord; readonly reason: string } {
  const word = isA(error, RecordUnreadableError) ? 'record_unreadable' : 'ledger_unavailable';
  return { word, reason: `${word}: ${messageOf(error)}` };
}

/** What interceptors around the library's own see when a delivery is put off. BullMQ never does. */
export class OperationDeferred extends Error {
  override readonly name = 'OperationDeferred';
}
