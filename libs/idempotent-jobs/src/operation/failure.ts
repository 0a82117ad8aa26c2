import type { FailureKind } from './reasons.js';
/** How long a reason may be, in characters: a word or two. */
export const MAX_REASON = 200;

/** A classified error. */
export interface Failure {
  readonly kind: FailureKind;
  /** Why it was classified so, e.g. `ECONNREFUSED` or `http_503`: a label for logs and metrics, at most 200 characters. */
  readonly code: string;
  /** The earliest time to try again that the service asked for, in milliseconds from now. */
  readonly retryAfterMs?: number | undefined;
  /** Whether the service asked for less (429, 503 with Retry-After, throttling); the waits then start from a slower base. */
  readonly isThrottled?: boolean;
}

/** Throw it to say: the effect did not happen and never will. The operation goes to the dead letters at once. */
export class PermanentError extends Error {
  override readonly name = 'PermanentError';
}

/** Throw it to say: the effect did not happen; trying again may help. */
export class TransientError extends Error {
  override readonly name: string = 'TransientError';
}

/** Throw it to say: the effect may have happened. */
export class InDoubtError extends Error {
  override readonly name: string = 'InDoubtError';
}

/** Throw it to say: the effect did not happen; try again, but not before `delayMs` milliseconds from now. */
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
