import type { RejectionCause } from '../../operation/reasons.js';
import { IdempotentJobsError } from '../../operation/errors.js';
import { causesOf, isA } from '../../operation/thrown.js';
import { bySaying } from '../classify/own.js';

/** A call that was not let through: nothing of it was sent. */
export interface Rejection {
  readonly kind: 'rejected';
  readonly dependency: string;
  readonly cause: RejectionCause;
  /** When to try again, in ms from now. */
  readonly retryAfterMs: number;
}

/**
 * A dependency rejected a call; nothing of it was sent. When a handler throws it, the operation is deferred without
 * spending an attempt.
 */
export class DependencyRejectedError extends IdempotentJobsError {
  /** When to try again, in ms from when it was thrown. */
  readonly retryAfterMs: number;

  constructor(readonly rejection: Rejection) {
    super(
      'DEPENDENCY_REJECTED',
      `Dependency "${rejection.dependency}" lets nothing through for now (${rejection.cause}). Nothing was sent; come again in ${Math.ceil(rejection.retryAfterMs)} ms.`,
      { data: { dependency: rejection.dependency, cause: rejection.cause } },
    );
    this.retryAfterMs = rejection.retryAfterMs;
  }
}

/**
 * The rejection that a handler ended with, also when it has wrapped the error. Undefined when there is none, or when the
 * handler says itself what became of its effect.
 */
export function rejectionBehind(error: unknown): Rejection | undefined {
  for (const one of causesOf(error)) {
    if (isA(one, DependencyRejectedError)) return one.rejection;
    if (bySaying(one) !== undefined) return undefined;
  }
  return undefined;
}
