/**
 * Separates an operation's key from its step's name in the key under which the ledger keeps the step. Keys of producers
 * contain no control characters, so none of them can equal a step's.
 */
export const STEP_MARK = '\u001F';

/** A key, also of a step, for people to read. It is not used for lookups. */
export function shownKey(operationKey: string): string {
  return operationKey.replaceAll(STEP_MARK, '/');
}
