import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePort } from 'local-servers';
import { eventually } from './eventually.js';

/** Whether this machine has a `pgbouncer` on its PATH. CI installs Debian's; elsewhere its suite is skipped, and says so. */
export const HAS_PGBOUNCER = spawnSync('pgbouncer', ['--version'], { stdio: 'ignore' }).status === 0;

if (!HAS_PGBOUNCER) {
  if (process.env['REQUIRE_REDIS'])
    throw new Error('All suites must run here, but there is no pgbouncer on the PATH.');
  console.warn('\n*** SKIPPED: the suites of PgBouncer. There is no pgbouncer on the PATH. ***\n');
}

/** A PgBouncer before a database. */
export interface RunningPgBouncer {
  /** The database's URL by way of it. */
  readonly url: string;
  stop(): Promise<void>;
}

/** Starts one on a free loopback port. It refuses to run as root, and runs as nobody then. */
export async function startPgBouncer(
  databaseUrl: string,
  poolMode: 'session' | 'transaction',
): Promise<RunningPgBouncer> {
  const target = new URL(databaseUrl);
  const port = await freePort();
  const directory = await mkdtemp(join(tmpdir(), 'pgbouncer-'));
  await chmod(directory, 0o755);
  const file = join(directory, 'pgbouncer.ini');
  await writeFile(
    file,
    `[databases]
* = host=${target.hostname} port=${target.port} user=${target.username}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
auth_type = any
pool_mode = ${poolMode}
default_pool_size = 20
ignore_startup_parameters = extra_float_digits
`,
  );
  const nobody = process.getuid?.() === 0 ? { uid: 65534, gid: 65534 } : {};
  const child = spawn('pgbouncer', ['-q', file], { stdio: 'ignore', ...nobody });
  const stop = async (): Promise<void> => {
    await end(child);
    await rm(directory, { recursive: true, force: true });
  };
  try {
    await eventually(
      () => listens(port),
      (isListening) => {
        if (!isListening) throw new Error(`PgBouncer does not listen on port ${port}`);
      },
    );
  } catch (error) {
    await stop();
    throw error;
  }
  const url = new URL(databaseUrl);
  url.hostname = '127.0.0.1';
  url.port = String(port);
  return { url: url.toString(), stop };
}

function listens(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', () => resolve(false));
  });
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGKILL');
  await exited;
}
