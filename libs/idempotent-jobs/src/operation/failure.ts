import type { FailureKind } from './reasons.js';

/** The longest failure code, in characters; a code is a word or two. */
export const MAX_FAILURE_CODE = 200;

/** A classified error. */
export interface Failure {
  readonly kind: FailureKind;
  /** Why it was classified so, e.g. `ECONNREFUSED` or `http_503`: a label for logs and metrics, at most 200 characters. */
  readonly code: string;
  /** The earliest time to try again that the service asked for, in milliseconds from now. */
  readonly retryAfterMs?: number | undefined;
  /** Whether the service asked for fewer calls (429, 503 with Retry-After); the backoff then starts from a slower base. */
  readonly isThrottled?: boolean;
}

/** Throw it when the effect did not happen and never will. The operation gets a dead letter at once. */
export class PermanentError extends Error {
  override readonly name = 'PermanentError';
}

/** Throw it when the effect did not happen and trying again may help. */
export class TransientError extends Error {
  override readonly name: string = 'TransientError';
}

/** Throw it when the effect may have happened. */
export class InDoubtError extends Error {
  override readonly name: string = 'InDoubtError';
}

/** Throw it when the effect did not happen, to try again no earlier than `delayMs` milliseconds from now. */
export class RetryLaterError extends TransientError {
  override readonly name = 'RetryLaterError';

  constructor(
    readonly delayMs: number,
    message = `Try again in ${delayMs} ms`,
    options?: { cause?: unknown },
  ) {
    super(message, options);
  }
}

/** No service means a longer wait, and Postgres and timers could not represent it. */
const MAX_WAIT_MS = 30 * 24 * 60 * 60 * 1000;

/** A sensible wait: not in the past, at most thirty days. Undefined for anything but a number. @internal */
export function waitOf(ms: unknown): number | undefined {
  return typeof ms !== 'number' || Number.isNaN(ms) ? undefined : Math.min(Math.max(0, ms), MAX_WAIT_MS);
}
