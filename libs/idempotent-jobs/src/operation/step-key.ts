/**
 * Stands between an operation's key and its step's name in the key that the ledger gives the step. Keys of producers hold no
 * control characters, so none of them can be that of a step.
 */
export const STEP_MARK = '\u001F';

/** A key for people to read, also of a step. Nothing is looked up by it. */
export function shownKey(operationKey: string): string {
  return operationKey.replaceAll(STEP_MARK, '/');
}
