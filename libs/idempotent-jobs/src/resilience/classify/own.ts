import { UnrecoverableError } from 'bullmq';
import { cleanText, isA, read } from '../../operation/thrown.js';
import { IdempotentJobsError } from '../../operation/errors.js';
import {
  type Failure,
  InDoubtError,
  MAX_FAILURE_CODE,
  PermanentError,
  RetryLaterError,
  TransientError,
  waitOf,
} from '../../operation/failure.js';
import type { FailureKind } from '../../operation/reasons.js';
import { signed } from './failure-sign.js';

/** What a handler threw on purpose. @internal */
export function bySaying(error: unknown): Failure | undefined {
  if (isA(error, RetryLaterError)) {
    return { kind: 'transient', code: nameOf(error), retryAfterMs: waitOf(read(error, 'delayMs')) };
  }
  if (isA(error, TransientError)) return { kind: 'transient', code: nameOf(error) };
  if (isA(error, PermanentError)) return { kind: 'permanent', code: nameOf(error) };
  if (isA(error, InDoubtError)) return { kind: 'in_doubt', code: nameOf(error) };
  // BullMQ's way to say that a job must not be tried again.
  if (isA(error, UnrecoverableError)) return { kind: 'permanent', code: 'UnrecoverableError' };
  return undefined;
}

function nameOf(error: unknown): string {
  return cleanText(String(read(error, 'name')), MAX_FAILURE_CODE);
}

/** What the library's own refusals mean when a handler throws them. @internal */
export const OWN_CODES: Readonly<Record<string, FailureKind>> = {
  OPERATION_CONFLICT: 'permanent',
  OPERATION_DEAD: 'permanent',
  OPERATION_BUSY: 'transient',
  OPERATION_LOCKED: 'transient',
  // The next call under the same key finds out what happened.
  LEDGER_UNAVAILABLE: 'transient',
  OPERATION_IN_DOUBT: 'in_doubt',
  // Nothing was sent.
  DEPENDENCY_REJECTED: 'transient',
};

/** Recognised by the class, since any service's answer can have a `code` field. @internal */
export function byOwnCode(error: unknown): Failure | undefined {
  const code = isA(error, IdempotentJobsError) ? read(error, 'code') : undefined;
  if (typeof code !== 'string' || !Object.hasOwn(OWN_CODES, code)) return undefined;
  const retryAfterMs = waitOf(read(error, 'retryAfterMs'));
  return signed('own_refusal', {
    kind: OWN_CODES[code] as FailureKind,
    code: code.toLowerCase(),
    ...(retryAfterMs !== undefined && { retryAfterMs }),
  });
}

/** Names that mean the same in every library: the caller stopped waiting for an answer. @internal */
export function byName(error: unknown): Failure | undefined {
  switch (read(error, 'name')) {
    case 'AbortError':
      return { kind: 'in_doubt', code: 'AbortError' };
    case 'TimeoutError':
      return signed('timeout', { kind: 'in_doubt', code: 'TimeoutError' });
    default:
      return undefined;
  }
}
