/**
 * What asks for an operation again: its BullMQ job, the handler whose step it is, or the caller of a guarded call (also
 * for the steps inside of that call).
 */
export const ORIGINS = ['job', 'step', 'call'] as const;

/** One of {@link ORIGINS}. */
export type Origin = (typeof ORIGINS)[number];

/** The `queue` of calls that `IdempotencyService` guards. It is no BullMQ queue. */
export const CALLS = '(calls)';
