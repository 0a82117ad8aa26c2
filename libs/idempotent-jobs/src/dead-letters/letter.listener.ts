import type { DropReason } from '../operation/reasons.js';
import { type Job, UnrecoverableError, Worker } from 'bullmq';
import type { QueuePort } from '../bullmq/queue-port.js';
import { errorForBullmq, finalErrorForBullmq } from '../bullmq/error-for-bullmq.js';
import { isOverWithin } from '../operation/within.js';
import { messageOf } from '../operation/message-of.js';
import { jobSubjectOf } from '../operation/job-subject.js';
import { isA } from '../operation/thrown.js';
import { letterBinding, type Encryption } from '../ledger/encryption/encryption.js';
import { outsideOfAnyFrame } from '../tenancy/outside-of-any-frame.js';
import type { TenantContext } from '../tenancy/tenant-context.js';
import type { DeadLetterWithPayload } from './dead-letter.js';
import { messageOfLetter } from './letter.queries.js';
import { DEAD_LETTER_JOB_NAME, type DeadLetterMessage } from '../operation/dead-letter-message.js';

/** A method of the application that is notified of dead letters. */
export interface LetterHandler {
  /** `Class.method`; unique in the application. */
  readonly name: string;
  readonly tell: (letter: DeadLetterMessage) => unknown;
}

/** What a listener needs of its application. */
export interface LetterListenerServices {
  /** Reads a letter from the ledger, its payload as it is stored. Undefined when there is none. */
  readonly letterOf: (letterId: string) => Promise<DeadLetterWithPayload | undefined>;
  /** The dead-letter queue of a source queue. Undefined when no application has registered the source queue. */
  readonly deadLetterQueueOf: (queue: string) => Promise<string | undefined>;
  /** The handlers to notify of a source queue's letters. */
  readonly handlersOf: (queue: string) => readonly LetterHandler[];
  readonly tenants: TenantContext;
  readonly encryption: Encryption;
  /** Every handler was notified of the letter. */
  readonly onNotified: (letterId: string) => Promise<void>;
  /** A message announced no letter that this listener may notify handlers of. */
  readonly onDropped: (job: Job, reason: DropReason) => void;
  readonly onError: (message: string) => void;
}

/**
 * Notifies the application's handlers of each letter on one dead-letter queue. It is an ordinary BullMQ worker: when its
 * process dies, the stall check delivers the letter again; when a handler throws, BullMQ's retries do.
 *
 * Of a message only the letter's id is trusted. Everything that handlers get comes from the letter's row.
 */
export class LetterListener {
  #worker: Worker | undefined;
  readonly #notified = new NotifiedHandlers();

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
      const process = (job: Job): Promise<void> => this.tell(job).catch(tellBullmq);
      const worker = new Worker(this.port.name, process, options, makeBackend);
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

  /**
   * Takes no more letters and waits up to `drainMs` for handlers. The letters that are not finished are delivered again.
   */
  async stop(drainMs: number, closeMs: number): Promise<void> {
    const worker = this.#worker;
    if (worker === undefined) return;
    if (await isOverWithin(drainMs, worker.close().catch(ignore))) return;
    this.services.onError(
      `Shutdown: handlers of letters on "${this.port.name}" are still running after ${drainMs} ms; the letters will be told again.`,
    );
    await isOverWithin(closeMs, worker.disconnect().catch(ignore));
  }

  /**
   * Calls every handler that this process has not notified of the letter yet. Rejects when one fails, so that BullMQ
   * tries again. Another process, or this one after a restart, calls all handlers: anyone may have written the message,
   * so it is not trusted to say which ones were notified.
   */
  async tell(job: Job): Promise<void> {
    if (job.name !== DEAD_LETTER_JOB_NAME) {
      this.services.onDropped(job, 'malformed');
      const { jobName } = jobSubjectOf(job);
      throw new UnrecoverableError(`Job "${jobName}" on queue "${this.port.name}" is not a dead letter.`);
    }
    const found = await this.#find(job);
    if (typeof found === 'string') return this.services.onDropped(job, found);
    const handlers = this.services.handlersOf(found.queue);
    // Queues can share a dead-letter queue, so another process may have a handler.
    if (handlers.length === 0) throw new Error(`Nobody is told of letters of queue "${found.queue}" here.`);
    const letter = this.#opened(found);
    const notified = this.#notified.of(letter.letterId);
    const due = handlers.filter(({ name }) => !notified.has(name));
    const failed: string[] = [];
    await Promise.all(
      due.map(async ({ name, tell }) => {
        try {
          await this.#inFrameOf(letter, () => tell(letter));
          notified.add(name);
        } catch (error) {
          failed.push(name);
          this.services.onError(failureOf(name, letter, job, error));
        }
      }),
    );
    if (failed.length === 0) {
      await this.services.onNotified(letter.letterId);
      this.#notified.forget(letter.letterId);
      return;
    }
    this.#notified.keep(letter.letterId, notified);
    throw new Error(`${failed.join(', ')} failed.`);
  }

  async #find(job: Job): Promise<DeadLetterWithPayload | DropReason> {
    const { letterId } = (job.data ?? {}) as { letterId?: unknown };
    if (typeof letterId !== 'string' || !LETTER_ID.test(letterId)) return 'malformed';
    const letter = await this.services.letterOf(letterId);
    if (letter === undefined) return 'unknown';
    const announcedOn = await this.services.deadLetterQueueOf(letter.queue);
    return announcedOn === this.port.name ? letter : 'elsewhere';
  }

  /** The letter, decrypted. An unreadable one throws and is delivered again later: its key may be on its way. */
  #opened(letter: DeadLetterWithPayload): DeadLetterMessage {
    try {
      return messageOfLetter({
        ...letter,
        payload: this.services.encryption.open(letter.payload, letterBinding(letter)),
      });
    } catch (error) {
      this.services.onError(
        `Dead letter ${letter.id} of queue "${letter.queue}" is told later: ${messageOf(error)}`,
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
  /** When a process dies, its letters are delivered again 10 to 15 s later. */
  lockDuration: 10_000,
  stalledInterval: 5_000,
  /** A handler that kills its process is then left alone for a while. */
  maxStalledCount: 10,
  /**
   * The letter itself is in Postgres. Finished jobs are kept for a while, so that a letter is not announced here twice.
   */
  removeOnComplete: { age: 24 * 60 * 60, count: 1000 },
};

/** A UUID, as Postgres writes it. */
const LETTER_ID = /^[\da-f]{8}(?:-[\da-f]{4}){3}-[\da-f]{12}$/;

/** For letters of which only some handlers were notified: those handlers, as far as this process knows. */
class NotifiedHandlers {
  readonly #byLetter = new Map<string, Set<string>>();

  of(letterId: string): Set<string> {
    return new Set(this.#byLetter.get(letterId));
  }

  keep(letterId: string, handlers: Set<string>): void {
    const known = this.of(letterId);
    this.forget(letterId);
    this.#byLetter.set(letterId, new Set([...known, ...handlers]));
    const [oldest] = this.#byLetter.keys();
    if (this.#byLetter.size > MAX_LETTERS && oldest !== undefined) this.forget(oldest);
  }

  forget(letterId: string): void {
    this.#byLetter.delete(letterId);
  }
}

/**
 * More letters than are delivered in the nine minutes of BullMQ's retries while a handler is down. Beyond that, the
 * oldest letter is forgotten, and all its handlers are called again.
 */
const MAX_LETTERS = 10_000;

function failureOf(name: string, letter: DeadLetterMessage, job: Job, error: unknown): string {
  const attempts = job.opts.attempts ?? 1;
  const attempt = job.attemptsMade + 1;
  const next =
    attempt < attempts
      ? 'it will be told again'
      : 'it will be told again after a longer pause, while it is open';
  return `${name} failed for dead letter ${letter.letterId} of queue "${letter.queue}" (attempt ${attempt} of ${attempts}; ${next}): ${messageOf(error)}`;
}

/** BullMQ gets a copy of the error, since an error may carry anything from a queue or a server. */
function tellBullmq(error: unknown): never {
  throw isA(error, UnrecoverableError) ? finalErrorForBullmq(error) : errorForBullmq(error);
}

function ignore(): void {}
