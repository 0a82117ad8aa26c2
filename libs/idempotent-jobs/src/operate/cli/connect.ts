import { Database } from '../../ledger/postgres/database.js';
import { MIN_CONNECTIONS } from '../../ledger/postgres/lanes.js';
import { messageOf, orUndefined } from '../../operation/thrown.js';
import { Unavailable, WrongUsage } from './command.js';

const CONNECT_TIMEOUT_MS = 10_000;
const DATABASE_EXAMPLE = 'postgres://user:password@host:5432/database';

/**
 * Connects to the ledger of `DATABASE_URL`.
 *
 * @throws WrongUsage if the variable is missing or names no Postgres; Unavailable if Postgres refuses the connection
 */
export async function connect(env: NodeJS.ProcessEnv, schema: string): Promise<Database> {
  const url = env['DATABASE_URL'];
  if (url === undefined) {
    throw new WrongUsage(
      `DATABASE_URL is not set. Set it to the Postgres that holds the ledger: DATABASE_URL=${DATABASE_EXAMPLE}`,
    );
  }
  const { host } = serverUrl('DATABASE_URL', url, /^postgres(?:ql)?:$/, DATABASE_EXAMPLE);
  // TypeORM is loaded only when it is needed: the help and refusals should not wait for it.
  const { DataSource } = await import('typeorm');
  const dataSource = new DataSource({
    type: 'postgres',
    url,
    schema,
    poolSize: 1,
    applicationName: 'idempotent-jobs',
    extra: { connectionTimeoutMillis: CONNECT_TIMEOUT_MS },
  });
  try {
    await dataSource.initialize();
  } catch (error) {
    throw new Unavailable(`Postgres at ${host} (DATABASE_URL) cannot be reached: ${reasonOf(error)}`);
  }
  return new Database(dataSource, schema, { max: MIN_CONNECTIONS, connection: {} });
}

/** Why something failed. When several addresses refuse, Node's error has a code and no message. */
export function reasonOf(error: unknown): string {
  const message = messageOf(error);
  const { code } = error as { code?: unknown };
  return message === '' ? (typeof code === 'string' ? code : 'no reason given') : message;
}

/**
 * Reads a server's URL from a variable. When it rejects the URL, the message quotes nothing of it: an unescaped character
 * in a password moves parts of it into the host, the path or the rest.
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
  if ([username, password, pathname].some((part) => decoded(part) === undefined))
    throw new WrongUsage(`${variable} has a "%" that begins no escape such as %25. ${HINT}`);
  return url;
}

const HINT =
  'In a user name or password, write @ as %40, : as %3A, / as %2F, ? as %3F, # as %23 and % as %25.';

/** Undefined for a text with an invalid escape. */
function decoded(text: string): string | undefined {
  return orUndefined(() => decodeURIComponent(text));
}

/** Variables that may hold passwords. */
const SECRET_VARIABLES = ['DATABASE_URL', 'REDIS_URL', 'PGPASSWORD'];

/** Shorter secrets would mask parts of ordinary words; the URLs that contain them are masked anyway. */
const MIN_SECRET_LENGTH = 4;

/** Makes a function that removes the environment's secrets from a text. */
export function redactor(env: NodeJS.ProcessEnv): (text: string) => string {
  const secrets = SECRET_VARIABLES.flatMap((name) => secretsOf(env[name] ?? ''))
    .filter((secret) => secret.length >= MIN_SECRET_LENGTH)
    .toSorted((a, b) => b.length - a.length);
  return (text) => {
    const masked = secrets.reduce((left, secret) => left.replaceAll(secret, '***'), text);
    // Between ":" and "@" there is a password in any URL, even in one that cannot be parsed.
    return masked.replace(/(\/\/[^\s/:@]*:)\S+@/g, '$1***@');
  };
}

function secretsOf(value: string): string[] {
  // From the first ":" to the last "@": the password may be unescaped and contain either.
  const raw = /\/\/[^:]*:([^]*)@/.exec(value)?.[1] ?? '';
  // A client that reads such a URL may take a part of its password for a host, a path or an option, and print it.
  const passwords = [raw, ...raw.split(/[@/?#]/)];
  if (URL.canParse(value)) {
    const { password, searchParams } = new URL(value);
    passwords.push(password, searchParams.get('password') ?? '');
  }
  return [value, ...passwords, ...passwords.map((password) => decoded(password) ?? '')];
}
