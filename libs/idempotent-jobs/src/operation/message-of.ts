import { cleanText } from './clean-text.js';
import { orUndefined, read } from './thrown.js';

/** The longest message in logs, events, job logs and BullMQ, in characters. The ledger keeps more. */
export const MAX_SHOWN_MESSAGE = 2_000;

/** The message of anything that was thrown, cut to length, and without characters that Postgres refuses. Never throws. */
export function messageOf(error: unknown, maxLength = MAX_SHOWN_MESSAGE): string {
  return cleanText(orUndefined(() => wordsOf(error)) ?? `a thrown ${typeof error}`, maxLength);
}

function wordsOf(error: unknown): string {
  if (error === null || error === undefined) return `a thrown ${error}`;
  if (typeof error !== 'object') return textOf(error);
  const message = read(error, 'message');
  if (typeof message === 'string') return message;
  // Nest's responses have lists and objects in place of a message.
  if (message !== undefined && message !== null) return JSON.stringify(message) ?? textOf(message);
  const text = textOf(error);
  return text === '[object Object]' ? 'a thrown object' : text;
}

/** The value as text, which may say nothing useful. */
function textOf(value: unknown): string {
  return String(value);
}
