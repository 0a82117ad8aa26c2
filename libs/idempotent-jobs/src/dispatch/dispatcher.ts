import type { QueuePort } from '../bullmq/queue-port.js';
import type { DispatchSource, DueJob } from './dispatch.source.js';

/** What the dispatcher needs to know about the application. */
export interface DispatcherServices {
  readonly sources: readonly DispatchSource[];
  /** The source queues this process serves; rows of others are left to whoever serves them. */
  readonly queues: () => readonly string[];
  readonly portOf: (queue: string) => QueuePort | undefined;
  readonly onError: (message: string, error: unknown) => void;
  readonly pollMs: number;
}

/**
 * Carries committed rows to BullMQ: take (and hold), put, mark. Any number of instances may run.
 *
 * Killed before the put, or between put and mark, the rows fall due again when their hold ends and are put again,
 * under the same job id, which BullMQ ignores while it has the job. With BullMQ's backend out of reach the rows stay.
 */
export class Dispatcher {
  #timer: NodeJS.Timeout | undefined;
  #working: Promise<void> | undefined;
  #isWoken = false;
  #isStopped = true;
  #failures = 0;

  constructor(private readonly services: DispatcherServices) {}

  get isRunning(): boolean {
    return !this.#isStopped;
  }

  start(): void {
    this.#isStopped = false;
    this.wake();
  }

  /** Something may be due now. */
  wake(): void {
    if (this.#isStopped) return;
    this.#isWoken = true;
    this.#working ??= this.#work().finally(() => {
      this.#working = undefined;
      this.#rest();
    });
  }

  /** Finishes the batch under way and stops. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    clearTimeout(this.#timer);
    await this.#working;
  }

  #rest(): void {
    clearTimeout(this.#timer);
    if (this.#isStopped) return;
    const pauseMs =
      this.#failures === 0 ? this.services.pollMs : Math.min(MAX_PAUSE_MS, 250 * 2 ** this.#failures);
    this.#timer = setTimeout(() => this.wake(), this.#isWoken && this.#failures === 0 ? 0 : pauseMs);
    this.#timer.unref();
  }

  async #work(): Promise<void> {
    // A tick's grace, so that what is enqueued together is dispatched together.
    await new Promise((resolve) => setImmediate(resolve));
    this.#isWoken = false;
    let isWell = true;
    for (const source of this.services.sources) {
      try {
        while (!this.#isStopped) {
          const { taken, isAllPut } = await this.#carry(source);
          isWell &&= isAllPut;
          if (taken < BATCH_SIZE || !isAllPut) break;
        }
      } catch (error) {
        isWell = false;
        this.services.onError('Dispatching was interrupted; it goes on by itself', error);
      }
    }
    this.#failures = isWell ? 0 : Math.min(this.#failures + 1, 10);
  }

  async #carry(source: DispatchSource): Promise<{ taken: number; isAllPut: boolean }> {
    const queues = this.services.queues();
    if (queues.length === 0) return { taken: 0, isAllPut: true };
    const due = await source.take(queues, BATCH_SIZE, HOLD_MS);
    // Side by side: a queue whose backend is out of reach holds up no other.
    const puts = await Promise.all(
      [...byQueue(due)].map(async ([queue, jobs]) => {
        const put = await this.#put(queue, jobs, source.carriesRetries);
        try {
          if (put.length > 0) await source.mark(put);
          return put.length;
        } catch (error) {
          // They are on their queue, and will be put there once more, which changes nothing.
          this.services.onError(`Jobs of queue "${queue}" were put, but could not be marked`, error);
          return 0;
        }
      }),
    );
    return { taken: due.length, isAllPut: puts.reduce((sum, count) => sum + count, 0) === due.length };
  }

  /** Puts a batch; if BullMQ refuses it, each job alone, so that one it cannot take holds up no other. Never rejects. */
  async #put(queue: string, jobs: DueJob[], carriesRetries: boolean): Promise<DueJob[]> {
    const port = this.services.portOf(queue);
    if (port === undefined) return [];
    try {
      await within(
        PUT_TIMEOUT_MS,
        port.put(
          jobs.map(({ job }) => job),
          carriesRetries,
        ),
      );
      return jobs;
    } catch (error) {
      if (jobs.length === 1 || (await this.#isUnreachable(port))) {
        const what = jobs.length === 1 ? `job ${jobs[0]?.job.jobId}` : `${jobs.length} jobs`;
        this.services.onError(`Queue "${queue}" did not take ${what}; they are tried again later`, error);
        return [];
      }
    }
    const put: DueJob[] = [];
    for (const job of jobs) put.push(...(await this.#put(queue, [job], carriesRetries)));
    return put;
  }

  async #isUnreachable(port: QueuePort): Promise<boolean> {
    return within(PING_TIMEOUT_MS, port.ping()).then(
      () => false,
      () => true,
    );
  }
}

const BATCH_SIZE = 500;
/**
 * Longer than a put may take, so that a slow put is not repeated by another instance; and how long operations wait whose
 * dispatcher was killed with them in hand.
 */
const HOLD_MS = 10_000;
const PUT_TIMEOUT_MS = 5_000;
const PING_TIMEOUT_MS = 2_000;
const MAX_PAUSE_MS = 10_000;

function byQueue(due: readonly DueJob[]): Map<string, DueJob[]> {
  const queues = new Map<string, DueJob[]>();
  for (const job of due) {
    const jobs = queues.get(job.queue);
    if (jobs === undefined) queues.set(job.queue, [job]);
    else jobs.push(job);
  }
  return queues;
}

/** BullMQ waits for a lost connection without end; the dispatcher must not. */
async function within<T>(ms: number, work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`No answer from the queue's backend within ${ms} ms`)), ms);
  });
  try {
    return await Promise.race([work, timeout]);
  } finally {
    clearTimeout(timer);
  }
}
