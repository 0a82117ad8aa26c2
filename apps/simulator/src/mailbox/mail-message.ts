/**
 * As much of MIME as a plain text mail needs: unfolded headers, encoded words, and a body in base64 or quoted-printable.
 * Anything else (attachments, alternatives) stays as it came.
 */

export interface MailMessage {
  /** By lower-case name; of several headers with one name, the first. */
  readonly headers: ReadonlyMap<string, string>;
  readonly body: string;
}

/** Reads a raw message, given byte for byte (`latin1`). */
export function readMessage(raw: string): MailMessage {
  const end = raw.indexOf('\r\n\r\n');
  const head = end < 0 ? raw : raw.slice(0, end);
  const headers = new Map<string, string>();
  for (const line of head.replace(/\r\n[ \t]+/g, ' ').split('\r\n')) {
    const colon = line.indexOf(':');
    const name = line.slice(0, colon).trim().toLowerCase();
    if (colon > 0 && !headers.has(name)) headers.set(name, decodeWords(line.slice(colon + 1).trim()));
  }
  const body = end < 0 ? '' : raw.slice(end + 4);
  return {
    headers,
    body: decodeBody(body, headers.get('content-transfer-encoding')).replaceAll('\r\n', '\n').trimEnd(),
  };
}

function decodeBody(body: string, encoding = '7bit'): string {
  switch (encoding.toLowerCase()) {
    case 'base64':
      return Buffer.from(body, 'base64').toString('utf8');
    case 'quoted-printable':
      return decodeQuoted(body.replace(/=\r\n/g, ''));
    default:
      return Buffer.from(body, 'latin1').toString('utf8');
  }
}

/** `=?UTF-8?Q?caf=C3=A9?=` and its base64 sister; the white space between two of them is not part of the text. */
function decodeWords(text: string): string {
  return text
    .replace(/\?=\s+=\?/g, '?==?')
    .replace(/=\?[^?]+\?([bq])\?([^?]*)\?=/gi, (_, kind: string, word: string) =>
      kind.toLowerCase() === 'b'
        ? Buffer.from(word, 'base64').toString('utf8')
        : decodeQuoted(word.replaceAll('_', ' ')),
    );
}

function decodeQuoted(text: string): string {
  const bytes = text.replace(/=([0-9a-f]{2})/gi, (_, hex: string) => String.fromCharCode(parseInt(hex, 16)));
  return Buffer.from(bytes, 'latin1').toString('utf8');
}
