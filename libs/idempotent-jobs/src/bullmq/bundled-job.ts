import { Job, type JobsOptions, type Worker } from 'bullmq';
import { UsageError } from '../operation/errors.js';
import { CARRIED_ATTEMPTS, BACKOFF_TYPE } from './error-for-bullmq.js';

/**
 * The job of an operation that came in a bundle, as its handler sees it. BullMQ has no job of that id: what concerns the
 * operation works, and what would need a job of BullMQ is refused.
 */
export class BundledJobView extends Job {
  #returnsAt: number | undefined;
  #isCleared = false;

  /** @param bundle the BullMQ job that carries it */
  constructor(bundle: Job, { id, name, data }: { id: string; name: string; data: unknown }) {
    super(queueOf(bundle), name, data, optionsIn(bundle), id);
    this.token = bundle.token;
    this.processedOn = bundle.processedOn;
  }

  /** When the handler wants it to be delivered again, in ms since 1970. Undefined when it has not asked for that. */
  get returnsAt(): number | undefined {
    return this.#returnsAt;
  }

  override async moveToDelayed(timestamp: number): Promise<void> {
    this.#returnsAt = timestamp;
  }

  override async moveToWait(): Promise<number> {
    this.#returnsAt = Date.now();
    return 1;
  }

  /** Whether its data was taken out of it: a job that is never to be run must not keep its payload. */
  get isCleared(): boolean {
    return this.#isCleared;
  }

  override async updateData(): Promise<void> {
    this.#isCleared = true;
  }

  /** It is no part of a flow. */
  override async getChildrenValues<Value = unknown>(): Promise<Record<string, Value>> {
    return {};
  }
}

/** The options that the operation's job would have had by itself, when it was put on its queue. */
function optionsIn({ timestamp, priority }: Job): JobsOptions {
  return {
    attempts: CARRIED_ATTEMPTS,
    backoff: { type: BACKOFF_TYPE },
    timestamp,
    ...(priority > 0 && { priority }),
  };
}

/** BullMQ keeps it to the job itself and its subclasses. */
function queueOf(job: Job): ConstructorParameters<typeof Job>[0] {
  return (job as unknown as { queue: ConstructorParameters<typeof Job>[0] }).queue;
}

/** The worker that BullMQ has delivered the job to. An instance of a request-scoped processor does not know it. */
export function workerOfJob(job: Job): Worker {
  return queueOf(job) as Worker;
}

const NEEDS_A_JOB = [
  'updateProgress',
  'log',
  'clearLogs',
  'moveToWaitingChildren',
  'moveToCompleted',
  'moveToFailed',
  'changeDelay',
  'changePriority',
  'promote',
  'retry',
  'remove',
  'extendLock',
  'waitUntilFinished',
  'getDependencies',
  'getDependenciesCount',
  'removeChildDependency',
  'removeUnprocessedChildren',
] as const satisfies readonly (keyof Job)[];

for (const method of NEEDS_A_JOB) {
  Object.defineProperty(BundledJobView.prototype, method, {
    configurable: true,
    writable: true,
    value(this: BundledJobView): Promise<never> {
      return Promise.reject(
        new UsageError(
          `job.${method}() needs a job of BullMQ, but operation ${this.id} of queue "${this.queueName}" came in a bundle with others. Register the queue without \`bundle\`, or keep such things in your own tables.`,
        ),
      );
    },
  });
}
