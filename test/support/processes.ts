import { type ChildProcess, fork } from 'node:child_process';
import type { JobEvent } from 'nestjs-idempotent-jobs/observe';
import { afterEach, inject } from 'vitest';
import { eventually } from './eventually.js';
import type { Script } from './script.js';

/** What a process has told so far. */
export interface ProcessMessage {
  readonly at: 'ready' | 'handler' | 'wrote' | 'effect' | 'answered' | 'told' | 'fenced' | 'event' | 'begun';
  readonly attempt?: number;
  readonly fencingToken?: number;
  readonly outcome?: string;
  /** Of an event. */
  readonly kind?: JobEvent['kind'];
  /** What its callers got. */
  readonly results?: readonly unknown[];
  readonly redriveId?: string;
}

/** The program (`program.ts`) in a process of its own. */
export class TestProcess {
  readonly messages: ProcessMessage[] = [];
  readonly exited: Promise<NodeJS.Signals | number | null>;

  private constructor(private readonly child: ChildProcess) {
    child.on('message', (message) => this.messages.push(message as ProcessMessage));
    this.exited = new Promise((resolve) => child.once('exit', (code, signal) => resolve(signal ?? code)));
  }

  static launch(script: Script, execArgv: readonly string[] = []): TestProcess {
    const { runner, bundle } = inject('program');
    const child = fork(runner, {
      env: { ...process.env, BUNDLE: bundle, SCRIPT: JSON.stringify(script) },
      execArgv: [...execArgv],
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    });
    return new TestProcess(child);
  }

  get pid(): number {
    return this.child.pid as number;
  }

  /** Waits until it says that it is there. */
  async reached(at: ProcessMessage['at']): Promise<ProcessMessage> {
    const messages = await eventually(
      () => this.messages.filter((message) => message.at === at),
      (found) => {
        if (found.length === 0)
          throw new Error(
            `process ${this.pid} has not reached "${at}"; it has told ${JSON.stringify(this.messages)}`,
          );
      },
    );
    return messages[0] as ProcessMessage;
  }

  /** The kinds of the events that it has told of; those of handlers that are told how to end. */
  get events(): readonly JobEvent['kind'][] {
    return this.messages.flatMap(({ kind }) => (kind === undefined ? [] : [kind]));
  }

  /** All its callers call at once. */
  call(): void {
    this.child.send('call');
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

/** Processes that a test starts; all are ended when it ends, after the applications if it asks for these later. */
export interface TestProcesses {
  /** One that is up. */
  readonly start: (script: Script) => Promise<TestProcess>;
  /** One that may not live to be up. */
  readonly launch: (script: Script, execArgv?: readonly string[]) => TestProcess;
}

export function useProcesses(): TestProcesses {
  const open = new Set<TestProcess>();
  afterEach(async () => {
    await Promise.all([...open].map((process) => process.end()));
    open.clear();
  });
  const launch = (script: Script, execArgv?: readonly string[]): TestProcess => {
    const process = TestProcess.launch(script, execArgv);
    open.add(process);
    return process;
  };
  return {
    launch,
    async start(script) {
      const process = launch(script);
      await process.reached('ready');
      return process;
    },
  };
}
