/**
 * A server of ours: one child process at a time, its log in a file, guarded by the watchdog from the moment it exists.
 * The log is a file and not a pipe because a pipe would stall the server when nobody reads, and kill it when we die.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { openSync, closeSync, readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Watchdog } from './watchdog.js';

/** How to start the server, and how to tell that it answers. */
export interface ServerCommand {
  /** For messages: `Postgres`, `Redis`. */
  readonly name: string;
  readonly file: string;
  readonly args: readonly string[];
  readonly logFile: string;
  /** Who it runs as, when that is not us. */
  readonly user?: { readonly uid: number; readonly gid: number } | undefined;
  /** Whether it takes requests by now. */
  isReady(): Promise<boolean>;
}

/** Generous: a cold machine under a full test run is slow, and a server that fails says so at once by exiting. */
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
      // Ctrl-C in a terminal is for the owner, which may still need its database to finish properly.
      detached: true,
      // Ours may be closed to the user that the server runs as.
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

  /** Sends the signal and waits for the end; after {@link STOP_MS} it is SIGKILL. Harmless when nothing runs. */
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
