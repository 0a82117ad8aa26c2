import { WrongUsage } from './wrong-usage.js';

/**
 * Reads the URL of a server that a variable names. What it says of a URL that it refuses quotes nothing of it: an
 * unescaped character of a password moves parts of that into the host, the path or the rest.
 *
 * @throws WrongUsage
 */
export function serverUrl(variable: string, text: string, protocols: RegExp, example: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !protocols.test(url.protocol))
    throw new WrongUsage(`${variable} is not a URL of the form ${example}. ${HINT}`);
  const { username, password, pathname, search, hash } = url;
  if (`${pathname}${search}${hash}`.includes('@'))
    throw new WrongUsage(`${variable} has an "@" behind its host. ${HINT}`);
  if (![username, password, pathname].every(isDecodable))
    throw new WrongUsage(`${variable} has a "%" that begins no escape such as %25. ${HINT}`);
  return url;
}

const HINT =
  'In a user name or password, write @ as %40, : as %3A, / as %2F, ? as %3F, # as %23 and % as %25.';

function isDecodable(text: string): boolean {
  try {
    decodeURIComponent(text);
    return true;
  } catch {
    return false;
  }
}
