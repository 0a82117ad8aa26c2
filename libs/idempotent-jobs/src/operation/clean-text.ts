/**
 * A text as the ledger, BullMQ and logs can take it: cut to length, without the NUL characters and halves of surrogate
 * pairs that Postgres refuses. Those become U+FFFD.
 */
export function cleanText(text: string, maxLength = Infinity): string {
  return text.slice(0, maxLength).toWellFormed().replaceAll('\0', '\u{FFFD}');
}
