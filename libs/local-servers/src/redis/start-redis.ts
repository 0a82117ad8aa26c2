import { spawnSync } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ServerProcess } from '../process/server-process.js';
import { startOnFreePort } from '../process/start-on-free-port.js';
import { Watchdog } from '../process/watchdog.js';
import { answersPing } from './ping.js';

/** How to start a private Redis. */
export interface StartRedisOptions {
  /** Added at the end of the command line, where they override others: `['--appendonly', 'yes']`. Default: none. */
  readonly flags?: readonly string[];
}

/** A running private Redis server. */
export interface LocalRedis {
  readonly url: string;
  readonly port: number;
  /** Its working directory, where `dump.rdb` and the append-only files go when persistence is on. */
  readonly directory: string;
  /** Its process id while it runs. */
  readonly pid: number | undefined;
  /** Stops the server and removes its directory. It cannot be restarted. */
  stop(): Promise<void>;
  /** Sends SIGKILL. Data that was not persisted is lost; the directory stays for {@link restart}. */
  kill(): Promise<void>;
  /** Starts again with the same port and directory; stops the server first if it still runs. */
  restart(): Promise<void>;
}

/** Whether this machine has a `redis-server` on its PATH. */
export function isRedisInstalled(): boolean {
  return spawnSync('redis-server', ['--version'], { stdio: 'ignore' }).status === 0;
}

/**
 * Starts a Redis server of your own on a free loopback port, without persistence unless `flags` ask for it. It ends with
 * this process, even if that is killed. Returns undefined when `redis-server` is not on the PATH.
 *
 * @throws Error with the server's log when it cannot be started
 */
export async function startRedis(options: StartRedisOptions = {}): Promise<LocalRedis | undefined> {
  if (!isRedisInstalled()) return undefined;
  const directory = await mkdtemp(join(tmpdir(), 'local-redis-'));
  const watchdog = Watchdog.post([directory]);
  const clean = async () => {
    await rm(directory, { recursive: true, force: true });
    watchdog.dismiss();
  };
  try {
    let started: ServerProcess | undefined;
    const port = await startOnFreePort((port) => {
      started = new ServerProcess(
        {
          name: 'Redis',
          file: 'redis-server',
          args: [...flags(port, directory), ...(options.flags ?? [])],
          logFile: join(directory, 'server.log'),
          isReady: () => answersPing(port),
        },
        watchdog,
      );
      return started.start();
    });
    const server = started as unknown as ServerProcess;
    return {
      url: `redis://127.0.0.1:${port}`,
      port,
      directory,
      get pid() {
        return server.pid;
      },
      async stop() {
        // Its data is removed anyway: a gentler signal would save nothing.
        await server.end('SIGKILL');
        await clean();
      },
      kill: () => server.end('SIGKILL'),
      async restart() {
        await server.end('SIGTERM');
        await server.start();
      },
    };
  } catch (error) {
    await clean();
    throw error;
  }
}

function flags(port: number, directory: string): string[] {
  const network = ['--port', String(port), '--bind', '127.0.0.1', '--dir', directory, '--daemonize', 'no'];
  return [...network, '--save', '', '--appendonly', 'no'];
}
