/**
 * Who comes again for an operation: its BullMQ job, the handler of a job whose step it is, or the caller of a guarded call
 * (also for the steps inside of that call).
 */
export const ORIGINS = ['job', 'step', 'call'] as const;

/** One of {@link ORIGINS}. */
export type Origin = (typeof ORIGINS)[number];

/** What calls that `IdempotencyService` guards show as their `queue`. It is no BullMQ queue. */
export const CALLS = '(calls)';
