/**
 * A text as the ledger, BullMQ and logs can take it: cut to length, without the NUL characters and halves of surrogate
 * pairs that Postgres refuses. Those become U+FFFD.
 */
export function cleanText(text: string, maxLength = Infinity): string {
  const cut = text.length > maxLength ? text.slice(0, maxLength) : text;
  return cut.isWellFormed() && !cut.includes('\0') ? cut : cut.toWellFormed().replaceAll('\0', '\u{FFFD}');
}
