const CONTROL_ERRORS = new Set(['DelayedError', 'WaitingError', 'WaitingChildrenError']);

/** BullMQ's constant; the error class is matched by this message alone. */
const RATE_LIMIT_MESSAGE = 'bullmq:rateLimitExceeded';

/**
 * Whether a handler threw one of the errors by which BullMQ is told that the handler itself has arranged what happens
 * to its job (`job.moveToDelayed()`, `worker.rateLimit()` and so on).
 */
export function isControlError(error: unknown): boolean {
  return error instanceof Error && (CONTROL_ERRORS.has(error.name) || error.message === RATE_LIMIT_MESSAGE);
}
