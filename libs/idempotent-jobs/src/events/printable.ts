/**
 * Characters that a terminal or a log viewer obeys, hides or reorders instead of showing: control characters (C1 too),
 * line and paragraph separators, bidi and zero-width characters, tags, variation selectors, lone surrogates.
 */
const UNSEEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]/gu;

/**
 * Any text as one line for people. Invisible characters are shown as JSON escapes, so that they neither steer the terminal
 * nor imitate a line of ours. Only for display; the stored text is unchanged.
 */
export function printable(text: string): string {
  return text.replace(UNSEEN, escapeOf);
}

/** A value as JSON, indented by two. It parses back to the same value, and has no invisible characters. */
export function printableJson(value: unknown): string {
  // The only line feeds left in JSON are those of the indentation.
  return JSON.stringify(value, null, 2).replace(UNSEEN, (unseen) =>
    unseen === '\n' ? unseen : escapeOf(unseen),
  );
}

function escapeOf(unseen: string): string {
  const escaped = JSON.stringify(unseen).slice(1, -1);
  return escaped === unseen ? unicodeEscapeOf(unseen) : escaped;
}

/** JSON has no escape for characters beyond U+FFFF, so they are written as two surrogates. */
function unicodeEscapeOf(unseen: string): string {
  return unseen
    .split('')
    .map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
    .join('');
}
