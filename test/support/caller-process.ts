import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { CallScript } from './call-program.js';
import { eventually } from './eventually.js';

interface CallerMessage {
  readonly at: 'ready' | 'effect' | 'answered';
  readonly results?: readonly unknown[];
}

/** Callers in a process of their own. */
export class CallerProcess {
  readonly #messages: CallerMessage[] = [];

  private constructor(private readonly child: ChildProcess) {
    child.on('message', (message) => this.#messages.push(message as CallerMessage));
  }

  /** Starts the process and waits until it is ready to call. */
  static async start(script: CallScript): Promise<CallerProcess> {
    const program = fileURLToPath(new URL('../dist/support/call-program.js', import.meta.url));
    const child = fork(program, {
      env: { ...process.env, CALL_SCRIPT: JSON.stringify(script) },
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    });
    const caller = new CallerProcess(child);
    await caller.reached('ready');
    return caller;
  }

  get pid(): number {
    return this.child.pid as number;
  }

  /** All its callers call at once. */
  call(): void {
    this.child.send('call');
  }

  async reached(at: CallerMessage['at']): Promise<CallerMessage> {
    return eventually(
      () => this.#messages.find((message) => message.at === at) as CallerMessage,
      (message) => {
        if (message === undefined)
          throw new Error(`caller ${this.pid} has not reached "${at}": ${JSON.stringify(this.#messages)}`);
      },
      30_000,
    );
  }

  /** SIGKILL. */
  async kill(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const exited = once(this.child, 'exit');
    this.child.kill('SIGKILL');
    await exited;
  }
}
