import { messageOf } from '../operation/message-of.js';
import { toJsonText } from '../operation/json.js';

/** A handler's result as the ledger can keep it. */
export interface KeptResult {
  /** JSON text; undefined: none. */
  readonly text: string | undefined;
  /** What BullMQ is handed: the result, or nothing where JSON cannot express it. */
  readonly value: unknown;
  /** Why there is a result that could not be kept. */
  readonly problem: string | undefined;
}

/**
 * By now the effect has happened, so a result that cannot be kept must not fail the operation: it completes without
 * one, and says so.
 */
export function keepResult(value: unknown): KeptResult {
  if (value === undefined) return { text: undefined, value: undefined, problem: undefined };
  try {
    return { text: toJsonText('result', value), value, problem: undefined };
  } catch (error) {
    return { text: undefined, value: undefined, problem: messageOf(error) };
  }
}
