import { type Job, UnrecoverableError, Worker } from 'bullmq';
import type { QueuePort } from '../bullmq/queue-port.js';
import { isOverWithin } from '../within.js';
import { messageOf } from '../operation/message-of.js';
import { letterBinding } from '../sealing/binding.js';
import type { Sealer } from '../sealing/sealer.js';
import { outsideOfAnyFrame } from '../tenancy/outside-of-any-frame.js';
import type { TenantContext } from '../tenancy/tenant-context.js';
import { DEAD_LETTER_JOB_NAME, type DeadLetterMessage } from './letter.js';

/** A method of the application that is told of dead letters. */
export interface LetterHandler {
  /** `Class.method`; unique in the application. */
  readonly name: string;
  readonly tell: (letter: DeadLetterMessage) => unknown;
}

/** What a listener needs of its application. */
export interface LetterListenerServices {
  /** Who is to be told of a source queue's letters. */
  readonly handlersOf: (queue: string) => readonly LetterHandler[];
  readonly tenants: TenantContext;
  readonly sealer: Sealer;
  /** Every handler has heard of the letter. */
  readonly onTold: (letterId: string) => Promise<void>;
  readonly onError: (message: string) => void;
}

/**
 * Tells the application's handlers of each letter on one dead-letter queue. An ordinary BullMQ worker: a letter whose
 * process dies is delivered again by the stall check, one whose handler throws by BullMQ's retries.
 */
export class LetterListener {
  #worker: Worker | undefined;

  constructor(
    private readonly port: QueuePort,
    private readonly services: LetterListenerServices,
  ) {}

  start(): void {
    outsideOfAnyFrame(() => {
      const { connection, prefix, telemetry } = this.port.bullmq.opts;
      const options = {
        connection,
        ...(prefix !== undefined && { prefix }),
        ...(telemetry !== undefined && { telemetry }),
        ...WORKER_OPTIONS,
      };
      const { makeBackend } = this.port;
      const worker = new Worker(this.port.name, (job: Job) => this.tell(job), options, makeBackend);
      worker.on('error', (error) =>
        this.services.onError(`Listener of queue "${this.port.name}": ${messageOf(error)}`),
      );
      worker
        .run()
        .catch((error: unknown) =>
          this.services.onError(`Listener of queue "${this.port.name}" stopped: ${messageOf(error)}`),
        );
      this.#worker = worker;
    });
  }

  /** Takes no more letters and waits for handlers: `drainMs`, then no longer. Letters they still hold are told again. */
  async stop(drainMs: number, closeMs: number): Promise<void> {
    const worker = this.#worker;
    if (worker === undefined) return;
    if (await isOverWithin(drainMs, worker.close().catch(ignore))) return;
    this.services.onError(
      `Shutdown: handlers of letters on "${this.port.name}" are still running after ${drainMs} ms; the letters will be told again.`,
    );
    await isOverWithin(closeMs, worker.disconnect().catch(ignore));
  }

  /** Calls every handler that has not heard of the letter yet. Rejects when one fails, so that BullMQ tries again. */
  async tell(job: Job): Promise<void> {
    if (job.name !== DEAD_LETTER_JOB_NAME) {
      throw new UnrecoverableError(`Job "${job.name}" on queue "${this.port.name}" is not a dead letter.`);
    }
    const message = job.data as DeadLetterMessage;
    const handlers = this.services.handlersOf(message.queue);
    // Another process may have one: queues can share a dead-letter queue.
    if (handlers.length === 0) throw new Error(`Nobody is told of letters of queue "${message.queue}" here.`);
    const letter = this.#opened(message);
    const told = toldBefore(job);
    const due = handlers.filter(({ name }) => !told.has(name));
    const failed: string[] = [];
    await Promise.all(
      due.map(async ({ name, tell }) => {
        try {
          await this.#inFrameOf(letter, () => tell(letter));
          told.add(name);
        } catch (error) {
          failed.push(name);
          this.services.onError(failureOf(name, letter, job, error));
        }
      }),
    );
    if (failed.length === 0) {
      await this.services.onTold(letter.letterId);
      return;
    }
    if (told.size > 0) await job.updateProgress({ told: [...told] });
    throw new Error(`${failed.join(', ')} failed.`);
  }

  /** Unreadable, it is told again like one whose handler failed: its key may be on its way. */
  #opened(message: DeadLetterMessage): DeadLetterMessage {
    try {
      return { ...message, payload: this.services.sealer.open(message.payload, letterBinding(message)) };
    } catch (error) {
      this.services.onError(
        `Dead letter ${message.letterId} of queue "${message.queue}" is told later: ${messageOf(error)}`,
      );
      throw error;
    }
  }

  #inFrameOf(letter: DeadLetterMessage, fn: () => unknown): unknown {
    return letter.tenantId === null
      ? outsideOfAnyFrame(fn)
      : this.services.tenants.runJob(letter.tenantId, fn);
  }
}

const WORKER_OPTIONS = {
  autorun: false,
  concurrency: 10,
  /** News that a process died with is told again 10 to 15 s later. */
  lockDuration: 10_000,
  stalledInterval: 5_000,
  /** A handler that kills its process is left alone for a while then. */
  maxStalledCount: 10,
  /** The letter itself is in Postgres. What was told is kept for a while, so that it is not put here a second time. */
  removeOnComplete: { age: 24 * 60 * 60, count: 1000 },
};

/** The handlers that an earlier attempt of this job has reached. */
function toldBefore(job: Job): Set<string> {
  const { told } = (job.progress ?? {}) as { told?: unknown };
  return new Set(Array.isArray(told) ? (told as string[]) : []);
}

function failureOf(name: string, letter: DeadLetterMessage, job: Job, error: unknown): string {
  const attempts = job.opts.attempts ?? 1;
  const attempt = job.attemptsMade + 1;
  const next =
    attempt < attempts
      ? 'it will be told again'
      : 'it will be told again after a longer pause, while it is open';
  return `${name} failed for dead letter ${letter.letterId} of queue "${letter.queue}" (attempt ${attempt} of ${attempts}; ${next}): ${messageOf(error)}`;
}

function ignore(): void {}
