import { cleanText } from './clean-text.js';
import { orUndefined, read } from './thrown.js';

/** How much of a message logs, events, job logs and BullMQ are shown, in characters. The ledger keeps more. */
export const MAX_SHOWN_MESSAGE = 2_000;

/** What something that was thrown says, whatever it is; cut to length, and without what Postgres refuses. Never throws. */
export function messageOf(error: unknown, maxLength = MAX_SHOWN_MESSAGE): string {
  return cleanText(orUndefined(() => wordsOf(error)) ?? `a thrown ${typeof error}`, maxLength);
}

function wordsOf(error: unknown): string {
  if (error === null || error === undefined) return `a thrown ${error}`;
  if (typeof error !== 'object') return textOf(error);
  const message = read(error, 'message');
  if (typeof message === 'string') return message;
  // Nest's answers carry lists and objects in the place of a message.
  if (message !== undefined && message !== null) return JSON.stringify(message) ?? textOf(message);
  const text = textOf(error);
  return text === '[object Object]' ? 'a thrown object' : text;
}

/** Whatever it makes of itself, which may be nothing that helps. */
function textOf(value: unknown): string {
  return String(value);
}
