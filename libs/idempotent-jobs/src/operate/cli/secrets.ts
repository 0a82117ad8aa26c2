/** Variables that may hold passwords. */
const SECRET_VARIABLES = ['DATABASE_URL', 'REDIS_URL', 'PGPASSWORD'];

/** Makes a function that takes the secrets of the environment out of a text. */
export function redactor(env: NodeJS.ProcessEnv): (text: string) => string {
  const values = SECRET_VARIABLES.map((name) => env[name]).filter((value) => value !== undefined);
  const secrets = values.flatMap(secretsOf).toSorted((a, b) => b.length - a.length);
  return (text) => {
    const masked = secrets.reduce((left, secret) => left.replaceAll(secret, '***'), text);
    // Whatever URL it is, also one that nobody could parse: what stands between ":" and "@" is a password.
    return masked.replace(/(\/\/[^\s/:@]*:)\S+@/g, '$1***@');
  };
}

function secretsOf(value: string): string[] {
  if (value === '') return [];
  const raw = rawPasswordOf(value);
  // What reads such a URL may take a part of its password for a host, a path or an option, and say so.
  const passwords = [raw, ...raw.split(/[@/?#]/)].flatMap((part) => [part, decoded(part)]);
  try {
    const url = new URL(value);
    passwords.push(url.password, decoded(url.password), url.searchParams.get('password') ?? '');
  } catch {
    // Not a URL that can be read: the whole of it is kept secret.
  }
  return [value, ...passwords].filter((secret) => secret.length >= MIN_LENGTH);
}

/** What stands between the first ":" and the last "@", whatever is in between: its writer may have escaped nothing. */
function rawPasswordOf(value: string): string {
  return /\/\/[^:]*:([^]*)@/.exec(value)?.[1] ?? '';
}

/** Shorter ones would tear other words apart; the URLs they stand in are masked all the same. */
const MIN_LENGTH = 4;

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
