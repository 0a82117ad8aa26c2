/**
 * What asks for an operation again: its BullMQ job, the handler whose step it is, or the caller of a guarded call (also
 * for the steps inside of that call).
 */
export const ORIGINS = ['job', 'step', 'call'] as const;

/** One of {@link ORIGINS}. */
export type Origin = (typeof ORIGINS)[number];

/** The `queue` of calls that `IdempotencyService` guards. It is no BullMQ queue. */
export const CALLS = '(calls)';

/**
 * Separates an operation's key from its step's name in the key under which the ledger keeps the step. Keys of producers
 * contain no control characters, so none of them can equal a step's.
 */
export const STEP_MARK = '\u001F';

/** A key, also of a step, for people to read. It is not used for lookups. */
export function shownKey(operationKey: string): string {
  return operationKey.replaceAll(STEP_MARK, '/');
}
