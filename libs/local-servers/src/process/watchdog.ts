/**
 * The owner's end of the watchdog: a tiny process of its own that holds a pipe to us. When the pipe closes without a
 * farewell (we were killed, crashed, or simply ended), it kills the server that we left behind and removes its
 * directories. This works for SIGKILL too, and needs no signal handlers in the owner, which has its own ideas about them.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** From `src` (in a test) as from `dist`, the script to run is the compiled one. */
const SCRIPT = fileURLToPath(new URL('../../dist/process/watchdog-process.js', import.meta.url));

/** Cleans up after this process, however it ends. One watchdog looks after one server at a time. */
export class Watchdog {
  private constructor(private readonly child: ChildProcess) {}

  /** Starts watching; `directories` are removed when this process ends without {@link dismiss}. */
  static post(directories: readonly string[]): Watchdog {
    // Detached: Ctrl-C in a terminal goes to the whole process group, and must not reach the one who cleans up.
    const child = spawn(process.execPath, [SCRIPT, ...directories], {
      detached: true,
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    // Neither the child nor the pipe may keep an owner alive that has nothing else to do.
    child.unref();
    (child.stdin as unknown as { unref(): void }).unref();
    // A watchdog that cannot start or was killed costs the clean-up after a crash, not the server.
    child.on('error', () => undefined);
    child.stdin?.on('error', () => undefined);
    return new Watchdog(child);
  }

  /** The process to kill when we end: SIGQUIT first, SIGKILL when that does not help. */
  guard(pid: number): void {
    this.child.stdin?.write(`guard ${pid}\n`);
  }

  /** The process has ended by itself: its id may soon belong to somebody else. */
  release(): void {
    this.child.stdin?.write('release\n');
  }

  /** Nothing is left to clean up; the watchdog exits. */
  dismiss(): void {
    this.child.stdin?.end('dismiss\n');
  }
}
