/**
 * What a terminal or a log viewer obeys, hides or turns around instead of showing it: control characters (C1 too), line
 * and paragraph separators, bidi and zero-width characters, tags, variation selectors, halves of characters.
 */
const UNSEEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]/gu;

/**
 * Text of whatever origin as one line for people: what cannot be seen stands there as its escape in JSON, so that it
 * neither steers the terminal nor looks like a line of ours. Only for display; what is kept stays as it came.
 */
export function printable(text: string): string {
  return text.replace(UNSEEN, escapeOf);
}

/** A value as JSON for people and programs: it reads back as it was, and nothing in it is unseen. Indented by two. */
export function printableJson(value: unknown): string {
  // Line feeds of the indentation are the only ones that JSON has left.
  return JSON.stringify(value, null, 2).replace(UNSEEN, (unseen) =>
    unseen === '\n' ? unseen : escapeOf(unseen),
  );
}

function escapeOf(unseen: string): string {
  const escaped = JSON.stringify(unseen).slice(1, -1);
  return escaped === unseen ? unicodeEscapeOf(unseen) : escaped;
}

/** JSON has no escape for characters beyond U+FFFF: they are written as their two halves. */
function unicodeEscapeOf(unseen: string): string {
  return unseen
    .split('')
    .map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
    .join('');
}
