import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { Site } from '../contender.js';
import type { ScaleAppOptions } from './scale-app.js';

export interface ToWorker {
  readonly say: 'run' | 'usage' | 'usageAfterGc' | 'stop';
}

export type FromWorker =
  | { readonly kind: 'ready' }
  | { readonly kind: 'done'; readonly jobs: number }
  | ({ readonly kind: 'usage' } & Usage);

/** What a process has used. */
export interface Usage {
  readonly cpuUs: number;
  readonly rssBytes: number;
  readonly maxRssBytes: number;
  readonly heapBytes: number;
}

/** A process with an application of its own. */
export class WorkerProcess {
  /** Jobs that it has done. */
  done = 0;
  #onDone = (): void => undefined;

  private constructor(private readonly child: ChildProcess) {
    child.on('message', (message: FromWorker) => {
      if (message.kind !== 'done') return;
      this.done = message.jobs;
      this.#onDone();
    });
  }

  static async start(site: Site, options: ScaleAppOptions): Promise<WorkerProcess> {
    const program = fileURLToPath(new URL('worker-program.js', import.meta.url));
    const child = fork(program, [JSON.stringify([site, options])], { execArgv: ['--expose-gc'] });
    const worker = new WorkerProcess(child);
    await worker.#next('ready');
    return worker;
  }

  run(): void {
    this.child.send({ say: 'run' } satisfies ToWorker);
  }

  async usage(say: 'usage' | 'usageAfterGc' = 'usage'): Promise<Usage> {
    const answer = this.#next('usage');
    this.child.send({ say } satisfies ToWorker);
    return (await answer) as Usage & FromWorker;
  }

  async stop(): Promise<void> {
    const exited = once(this.child, 'exit');
    this.child.send({ say: 'stop' } satisfies ToWorker);
    await exited;
  }

  /** Resolves when these processes together have done so many jobs. */
  static async whenDone(workers: readonly WorkerProcess[], jobs: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const look = (): void => {
        if (workers.reduce((sum, { done }) => sum + done, 0) >= jobs) resolve();
      };
      for (const worker of workers) worker.#onDone = look;
      look();
    });
  }

  #next(kind: FromWorker['kind']): Promise<FromWorker> {
    return new Promise((resolve, reject) => {
      const onExit = (code: number | null): void => reject(new Error(`A worker process ended (${code})`));
      const onMessage = (message: FromWorker): void => {
        if (message.kind !== kind) return;
        this.child.off('message', onMessage);
        this.child.off('exit', onExit);
        resolve(message);
      };
      this.child.on('message', onMessage);
      this.child.once('exit', onExit);
    });
  }
}
