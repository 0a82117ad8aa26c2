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
  const passwords: string[] = [];
  try {
    const url = new URL(value);
    passwords.push(url.password, decoded(url.password), url.searchParams.get('password') ?? '');
  } catch {
    // Not a URL that can be read: the whole of it is kept secret.
  }
  return [value, ...passwords].filter((secret) => secret.length >= MIN_LENGTH);
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
