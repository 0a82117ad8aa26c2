import {
  type Failure,
  type FailureKind,
  InDoubtError,
  PermanentError,
  RetryLaterError,
  TransientError,
} from '../failure.js';
import { read, waitOf } from './inspect.js';

/** What a handler threw on purpose. @internal */
export function bySaying(error: unknown): Failure | undefined {
  if (error instanceof RetryLaterError) {
    return { kind: 'transient', reason: error.name, retryAfterMs: waitOf(error.delayMs) };
  }
  if (error instanceof TransientError) return { kind: 'transient', reason: error.name };
  if (error instanceof PermanentError) return { kind: 'permanent', reason: error.name };
  if (error instanceof InDoubtError) return { kind: 'in_doubt', reason: error.name };
  return undefined;
}

/** What the library's own refusals say, thrown through a handler. @internal */
export const OWN_CODES: Readonly<Record<string, FailureKind>> = {
  OPERATION_CONFLICT: 'permanent',
  OPERATION_DEAD: 'permanent',
  OPERATION_BUSY: 'transient',
  // The same call under the same key finds out what became of it.
  LEDGER_UNAVAILABLE: 'transient',
  OPERATION_IN_DOUBT: 'in_doubt',
  // Nothing was sent.
  DEPENDENCY_HELD: 'transient',
};

/** @internal */
export function byOwnCode(error: unknown): Failure | undefined {
  const code = read(error, 'code');
  if (typeof code !== 'string' || !Object.hasOwn(OWN_CODES, code)) return undefined;
  const retryAfterMs = read(error, 'retryAfterMs');
  return {
    kind: OWN_CODES[code] as FailureKind,
    reason: code.toLowerCase(),
    ...(typeof retryAfterMs === 'number' && { retryAfterMs: waitOf(retryAfterMs) }),
  };
}

/** Names that say the same whoever throws them. @internal */
export function byName(error: unknown): Failure | undefined {
  const name = read(error, 'name');
  if (name === 'AbortError' || name === 'TimeoutError') return { kind: 'in_doubt', reason: name };
  // BullMQ's way to say: do not try again.
  if (name === 'UnrecoverableError') return { kind: 'permanent', reason: name };
  return undefined;
}
