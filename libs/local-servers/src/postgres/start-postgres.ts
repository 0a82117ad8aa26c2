import { execFile } from 'node:child_process';
import { chown, mkdir, mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { Client } from 'pg';
import { ServerProcess } from '../process/server-process.js';
import { startOnFreePort } from '../process/start-on-free-port.js';
import { Watchdog } from '../process/watchdog.js';
import { LocalPostgres, postgresUrl } from './local-postgres.js';
import { postgresBinaries } from './postgres-binaries.js';
import { serverUser, type ServerUser } from './server-user.js';

/** How to start a private Postgres. */
export interface StartPostgresOptions {
  /** Where the data goes; created when missing. Default: a fresh temporary directory. */
  readonly dataDirectory?: string;
  /** Keep `dataDirectory` after the server has stopped, and use the data that is already there. Default: false. */
  readonly persistent?: boolean;
  /**
   * Survive a crash of the machine, not only of the server: fsync and full_page_writes on. Default: false, which is
   * enough for killing Postgres itself, since the kernel keeps what was written.
   */
  readonly durable?: boolean;
}

/**
 * Starts a Postgres server of your own on a free loopback port. It ends with this process, even if that is killed.
 *
 * @throws Error with the server's log when it cannot be started
 */
export async function startPostgres(options: StartPostgresOptions = {}): Promise<LocalPostgres> {
  const { persistent = false, durable = false } = options;
  if (persistent && !options.dataDirectory) throw new Error('persistent needs a dataDirectory to persist in');
  const user = await serverUser();
  const binaries = await postgresBinaries(user !== undefined);
  const home = await mkdtemp(join(tmpdir(), 'local-postgres-'));
  const data = resolve(options.dataDirectory ?? join(home, 'data'));
  const hasCluster = await exists(join(data, 'PG_VERSION'));
  // A directory that existed before may have other content: only directories created here may be removed.
  const directories = persistent || (await exists(data)) ? [home] : [home, data];
  const watchdog = Watchdog.post(directories);
  try {
    await giveTo(user, home, data);
    if (!hasCluster) await initialise(binaries.initdb, data, user, watchdog);
    let server: ServerProcess | undefined;
    const port = await startOnFreePort((port) => {
      server = new ServerProcess(
        {
          name: 'Postgres',
          file: binaries.postgres,
          args: ['-D', data, ...flags(port, durable)],
          logFile: join(home, 'server.log'),
          user,
          isReady: () => answers(postgresUrl(port)),
        },
        watchdog,
      );
      return server.start();
    });
    return new LocalPostgres(port, server as unknown as ServerProcess, watchdog, directories);
  } catch (error) {
    for (const directory of directories) await rm(directory, { recursive: true, force: true });
    watchdog.dismiss();
    throw error;
  }
}

function flags(port: number, durable: boolean): string[] {
  const settings = {
    port,
    listen_addresses: '127.0.0.1',
    // No socket file: it would need a directory that every user may write to.
    unix_socket_directories: '',
    // Enough for some ten applications, with a pool each for themselves, for the ledger and for each of their queues.
    max_connections: 600,
    fsync: durable ? 'on' : 'off',
    full_page_writes: durable ? 'on' : 'off',
    // Even without fsync: an acknowledged COMMIT must survive the immediate shutdown that the tests cause.
    synchronous_commit: 'on',
  };
  return Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
}

async function giveTo(user: ServerUser | undefined, home: string, data: string): Promise<void> {
  await mkdir(data, { recursive: true, mode: 0o700 });
  if (!user) return;
  await chown(home, user.uid, user.gid);
  await chown(data, user.uid, user.gid);
}

async function initialise(
  initdb: string,
  data: string,
  user: ServerUser | undefined,
  watchdog: Watchdog,
): Promise<void> {
  const args = [
    `--pgdata=${data}`,
    '--username=postgres',
    '--auth=trust',
    '--encoding=UTF8',
    '--locale=C',
    '--no-sync',
  ];
  const running = promisify(execFile)(initdb, args, { cwd: data, ...user });
  if (running.child.pid !== undefined) watchdog.guard(running.child.pid);
  try {
    await running;
  } catch (cause) {
    throw new Error(`initdb failed in ${data}: ${(cause as { stderr?: string }).stderr ?? ''}`, { cause });
  } finally {
    watchdog.release();
  }
}

async function answers(url: string): Promise<boolean> {
  const client = new Client({ connectionString: url, connectionTimeoutMillis: 2_000 });
  client.on('error', () => undefined);
  try {
    await client.connect();
    await client.end();
    return true;
  } catch {
    return false;
  }
}

async function exists(file: string): Promise<boolean> {
  return stat(file).then(
    () => true,
    () => false,
  );
}
