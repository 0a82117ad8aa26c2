/**
 * A process of a variant. Its IPC channel serves two ends: it says when it is ready, and because the channel breaks when
 * we end, however we end, it takes the child along.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import type { UndoList } from './undo-list.js';

const READY_MS = 30_000;

/** What a child says when it is up. */
interface Ready {
  readonly ready: true;
  /** Where it serves HTTP, if it does. */
  readonly url?: string;
}

export class Child {
  private readonly process: ChildProcess;
  private complaints = '';
  private address: string | undefined;

  private constructor(
    readonly name: string,
    program: string,
    env: NodeJS.ProcessEnv,
  ) {
    this.process = spawn(process.execPath, [program], {
      // Ctrl-C in a terminal is for us; we take the children along.
      detached: true,
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
      env: { ...process.env, ...env, WORKER_NAME: name },
    });
    this.process.stderr?.on('data', (chunk: Buffer) => {
      this.complaints = (this.complaints + chunk.toString()).slice(-4_000);
    });
  }

  /**
   * Starts a program and waits until it is ready.
   *
   * @throws Error with its stderr if it ends or stays silent instead
   */
  static async start(name: string, program: string, env: NodeJS.ProcessEnv, undo: UndoList): Promise<Child> {
    const child = new Child(name, program, env);
    undo.add(() => child.kill());
    await child.untilReady();
    return child;
  }

  get pid(): number | undefined {
    return this.process.pid;
  }

  /** Where it serves HTTP, if it does. */
  get url(): string | undefined {
    return this.address;
  }

  get isRunning(): boolean {
    return this.process.exitCode === null && this.process.signalCode === null;
  }

  /** The last it wrote to stderr. */
  get stderr(): string {
    return this.complaints;
  }

  /** SIGKILL: no farewell, no clean-up, as if the machine had lost its power. */
  async kill(): Promise<void> {
    if (!this.isRunning) return;
    const exited = once(this.process, 'exit');
    this.process.kill('SIGKILL');
    await exited;
  }

  private async untilReady(): Promise<void> {
    try {
      const [message] = (await Promise.race([
        once(this.process, 'message', { signal: AbortSignal.timeout(READY_MS) }),
        // 'close' and not 'exit': only then has all of stderr been read.
        once(this.process, 'close').then(() => Promise.reject(new Error('it exited'))),
      ])) as [Ready];
      this.address = message.url;
    } catch (cause) {
      await this.kill();
      throw new Error(`${this.name} could not be started. Its stderr:\n${this.complaints}`, { cause });
    }
  }
}
