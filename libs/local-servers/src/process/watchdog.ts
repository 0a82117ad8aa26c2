/**
 * The owner's side of the watchdog, which is a small process with a pipe to the owner. When the pipe closes without a
 * farewell (the owner was killed, crashed, or simply ended), the watchdog kills the server that was left behind and
 * removes its directories. This works for SIGKILL too, and needs no signal handlers in the owner, which may have its own.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** Both from `src` (in a test) and from `dist`, the script to run is the compiled one. */
const SCRIPT = fileURLToPath(new URL('../../dist/process/watchdog-process.js', import.meta.url));

/** Cleans up after this process, however it ends. One watchdog looks after one server at a time. */
export class Watchdog {
  private constructor(private readonly child: ChildProcess) {}

  /** Starts watching; `directories` are removed when this process ends without {@link dismiss}. */
  static post(directories: readonly string[]): Watchdog {
    // Detached: Ctrl-C in a terminal goes to the whole process group, and must not reach the watchdog.
    const child = spawn(process.execPath, [SCRIPT, ...directories], {
      detached: true,
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    // Neither the child nor the pipe may keep the owner alive when it has nothing else to do.
    child.unref();
    (child.stdin as unknown as { unref(): void }).unref();
    // If the watchdog cannot start or is killed, only the clean-up after a crash is lost, not the server.
    child.on('error', () => undefined);
    child.stdin?.on('error', () => undefined);
    return new Watchdog(child);
  }

  /** Sets the process to kill when the owner ends: SIGQUIT first, SIGKILL when that does not help. */
  guard(pid: number): void {
    this.child.stdin?.write(`guard ${pid}\n`);
  }

  /** The server has ended by itself: its process id may soon belong to another process. */
  release(): void {
    this.child.stdin?.write('release\n');
  }

  /** Nothing is left to clean up, so the watchdog exits. */
  dismiss(): void {
    this.child.stdin?.end('dismiss\n');
  }
}
