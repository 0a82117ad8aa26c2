import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { JobEvent } from 'nestjs-idempotent-jobs/observe';
import { afterEach } from 'vitest';
import { eventually } from './eventually.js';
import type { WorkerScript } from './worker-script.js';

/** What a worker process has told so far. */
export interface WorkerMessage {
  readonly at: 'ready' | 'handler' | 'wrote' | 'answered' | 'told' | 'fenced' | 'event';
  readonly attempt?: number;
  readonly fencingToken?: number;
  readonly outcome?: string;
  /** Of an event. */
  readonly kind?: JobEvent['kind'];
}

/** A worker in a process of its own. */
export class WorkerProcess {
  readonly messages: WorkerMessage[] = [];
  readonly exited: Promise<NodeJS.Signals | number | null>;

  private constructor(private readonly child: ChildProcess) {
    child.on('message', (message) => this.messages.push(message as WorkerMessage));
    this.exited = new Promise((resolve) => child.once('exit', (code, signal) => resolve(signal ?? code)));
  }

  static launch(script: WorkerScript): WorkerProcess {
    const program = fileURLToPath(new URL('../dist/support/worker-program.js', import.meta.url));
    const child = fork(program, {
      env: { ...process.env, WORKER_SCRIPT: JSON.stringify(script) },
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    });
    return new WorkerProcess(child);
  }

  get pid(): number {
    return this.child.pid as number;
  }

  /** Waits until the worker says that it is there. */
  async reached(at: WorkerMessage['at']): Promise<WorkerMessage> {
    const messages = await eventually(
      () => this.messages.filter((message) => message.at === at),
      (found) => {
        if (found.length === 0)
          throw new Error(
            `worker ${this.pid} has not reached "${at}"; it has told ${JSON.stringify(this.messages)}`,
          );
      },
      30_000,
    );
    return messages[0] as WorkerMessage;
  }

  /** The kinds of the events that the worker has told of; those of handlers that are told how to end. */
  get events(): readonly JobEvent['kind'][] {
    return this.messages.flatMap(({ kind }) => (kind === undefined ? [] : [kind]));
  }

  signal(signal: NodeJS.Signals): void {
    process.kill(this.pid, signal);
  }

  /** Ends the process for certain, also a stopped one. */
  async end(): Promise<void> {
    this.child.kill('SIGKILL');
    await this.exited;
  }
}

/** Workers that a test starts; all are ended when it ends, after the applications if it asks for these later. */
export interface TestWorkers {
  /** One that is up. */
  readonly start: (script: WorkerScript) => Promise<WorkerProcess>;
  /** One that may not live to be up. */
  readonly launch: (script: WorkerScript) => WorkerProcess;
}

export function useWorkers(): TestWorkers {
  const open = new Set<WorkerProcess>();
  afterEach(async () => {
    await Promise.all([...open].map((worker) => worker.end()));
    open.clear();
  });
  const launch = (script: WorkerScript): WorkerProcess => {
    const worker = WorkerProcess.launch(script);
    open.add(worker);
    return worker;
  };
  return {
    launch,
    async start(script) {
      const worker = launch(script);
      await worker.reached('ready');
      return worker;
    },
  };
}
