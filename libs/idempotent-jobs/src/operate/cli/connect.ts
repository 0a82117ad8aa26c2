import { messageOf } from '../../operation/message-of.js';
import { Database } from '../../ledger/postgres/database.js';
import { MIN_CONNECTIONS } from '../../ledger/postgres/lanes.js';
import { serverUrl } from './server-url.js';
import { Unavailable, WrongUsage } from './wrong-usage.js';

const CONNECT_TIMEOUT_MS = 10_000;

/**
 * Connects to the ledger of `DATABASE_URL`.
 *
 * @throws WrongUsage if the variable is missing or names no Postgres; Unavailable if Postgres does not let us in
 */
export async function connect(env: NodeJS.ProcessEnv, schema: string): Promise<Database> {
  const { host } = databaseUrl(env);
  // Loaded when it is needed: `--help` and refusals should not wait for it.
  const { DataSource } = await import('typeorm');
  const dataSource = new DataSource({
    type: 'postgres',
    url: env['DATABASE_URL'] as string,
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

function databaseUrl(env: NodeJS.ProcessEnv): URL {
  const text = env['DATABASE_URL'];
  if (text === undefined) {
    throw new WrongUsage(
      'DATABASE_URL is not set. Set it to the Postgres that holds the ledger: DATABASE_URL=postgres://user:password@host:5432/database',
    );
  }
  return serverUrl('DATABASE_URL', text, /^postgres(?:ql)?:$/, 'postgres://user:password@host:5432/database');
}

/** Node tells of several addresses that refused by an error without a message. */
export function reasonOf(error: unknown): string {
  const message = messageOf(error);
  const { code } = error as { code?: unknown };
  return message === '' ? (typeof code === 'string' ? code : 'no reason given') : message;
}
