import { messageOf } from './message-of.js';
import { InvalidPayloadError } from './errors.js';

/**
 * The JSON text of a value, as queues and Postgres will store it.
 *
 * @throws InvalidPayloadError if JSON cannot express it (BigInt, cycles, functions, undefined), or Postgres could not
 *   store it (NUL characters and lone surrogates, which its jsonb refuses)
 */
export function toJsonText(what: string, value: unknown): string {
  let text: string | undefined;
  try {
    text = JSON.stringify(value);
  } catch (cause) {
    throw new InvalidPayloadError(`The ${what} cannot be written as JSON: ${messageOf(cause)}`, [], cause);
  }
  if (text === undefined) {
    throw new InvalidPayloadError(
      `The ${what} is ${typeof value}, which JSON cannot express. DependencyPermit an object.`,
    );
  }
  if (UNSTORABLE.test(text)) {
    throw new InvalidPayloadError(
      `The ${what} holds a NUL character or half of a surrogate pair, which Postgres cannot store. Remove it or encode the text, for example as base64.`,
    );
  }
  return text;
}

/** The escapes `\u0000` and `\ud800`–`\udfff`. Of the surrogates, JSON.stringify escapes only lone ones. */
const UNSTORABLE = /(?<!\\)(?:\\\\)*\\u(?:0000|d[89a-f][0-9a-f]{2})/;
