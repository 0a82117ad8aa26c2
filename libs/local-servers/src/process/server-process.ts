/**
 * A server of this library: one child process at a time, with its log in a file, guarded by the watchdog from the start.
 * The log is no pipe, because a pipe would stall the server when nothing reads it, and kill it when this process dies.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { openSync, closeSync, readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Watchdog } from './watchdog.js';

/** How to start the server, and how to see that it answers. */
export interface ServerCommand {
  /** The name in messages: `Postgres`, `Redis`. */
  readonly name: string;
  readonly file: string;
  readonly args: readonly string[];
  readonly logFile: string;
  /** The user that it runs as. Undefined for the user of this process. */
  readonly user?: { readonly uid: number; readonly gid: number } | undefined;
  /** Whether it already takes requests. */
  isReady(): Promise<boolean>;
}

/** Long, because a cold machine under a full test run is slow; a server that fails exits at once. */
const START_MS = 30_000;
const STOP_MS = 20_000;

export class ServerProcess {
  private child: ChildProcess | undefined;

  constructor(
    private readonly command: ServerCommand,
    private readonly watchdog: Watchdog,
  ) {}

  /** The process id while it runs. */
  get pid(): number | undefined {
    return this.child?.pid;
  }

  /**
   * Starts the server and waits until it answers.
   *
   * @throws Error with the server's log when it exits or stays silent
   */
  async start(): Promise<void> {
    const { name, file, args, logFile, user } = this.command;
    const log = openSync(logFile, 'w');
    const child = spawn(file, args, {
      // Ctrl-C in a terminal must reach only this process, which may still need its database to shut down properly.
      detached: true,
      // The server's user may have no access to the current directory.
      cwd: dirname(logFile),
      stdio: ['ignore', log, log],
      ...user,
    });
    closeSync(log);
    this.child = child;
    let spawnError: Error | undefined;
    child.once('error', (error) => (spawnError = error));
    child.once('exit', () => {
      if (this.child === child) this.child = undefined;
      this.watchdog.release();
    });
    if (child.pid !== undefined) this.watchdog.guard(child.pid);

    const deadline = Date.now() + START_MS;
    while (!(await this.command.isReady())) {
      if (spawnError) throw new Error(`${name} could not be started from ${file}`, { cause: spawnError });
      if (this.child !== child) throw new Error(`${name} exited while starting. Its log:\n${this.log()}`);
      if (Date.now() > deadline) {
        await this.end('SIGKILL');
        throw new Error(`${name} did not answer within ${START_MS} ms. Its log:\n${this.log()}`);
      }
      await sleep(20);
    }
    child.unref();
  }

  /** Sends the signal and waits for the end; after {@link STOP_MS} it sends SIGKILL. Does nothing when no server runs. */
  async end(signal: NodeJS.Signals): Promise<void> {
    const child = this.child;
    if (child?.pid === undefined) return;
    child.ref();
    const ended = once(child, 'exit');
    child.kill(signal);
    const patience = setTimeout(() => child.kill('SIGKILL'), STOP_MS);
    await ended;
    clearTimeout(patience);
  }

  private log(): string {
    return readFileSync(this.command.logFile, 'utf8').slice(-4_000);
  }
}
