/**
 * Makes a text fit for the ledger, BullMQ and logs: cut to length, with U+FFFD in place of the NUL characters and lone
 * surrogates that Postgres refuses.
 */
export function cleanText(text: string, maxLength = Infinity): string {
  const cut = text.length > maxLength ? text.slice(0, maxLength) : text;
  return cut.isWellFormed() && !cut.includes('\0') ? cut : cut.toWellFormed().replaceAll('\0', '\u{FFFD}');
}
