import type { DropReason } from '../operation/reasons.js';
import { type Job, UnrecoverableError, Worker } from 'bullmq';
import type { QueuePort } from '../bullmq/queue-port.js';
import { errorForBullmq, finalErrorForBullmq } from '../bullmq/error-for-bullmq.js';
import { isOverWithin } from '../operation/within.js';
import { messageOf } from '../operation/message-of.js';
import { jobSubjectOf } from '../operation/job-subject.js';
import { isA } from '../operation/thrown.js';
import { letterBinding } from '../ledger/encryption/binding.js';
import type { Encryption } from '../ledger/encryption/encryption.js';
import { outsideOfAnyFrame } from '../tenancy/outside-of-any-frame.js';
import type { TenantContext } from '../tenancy/tenant-context.js';
import type { DeadLetterWithPayload } from './dead-letter.js';
import { DEAD_LETTER_JOB_NAME, type DeadLetterMessage } from '../operation/dead-letter-message.js';

/** A method of the application that is told of dead letters. */
export interface LetterHandler {
  /** `Class.method`; unique in the application. */
  readonly name: string;
  readonly tell: (letter: DeadLetterMessage) => unknown;
}

/** What a listener needs of its application. */
export interface LetterListenerServices {
  /** The letter as the ledger has it, its payload as it is kept; undefined: there is none. */
  readonly letterOf: (letterId: string) => Promise<DeadLetterWithPayload | undefined>;
  /** Where a source queue's letters are announced; undefined: nobody has ever registered it. */
  readonly deadLetterQueueOf: (queue: string) => Promise<string | undefined>;
  /** Who is to be told of a source queue's letters. */
  readonly handlersOf: (queue: string) => readonly LetterHandler[];
  readonly tenants: TenantContext;
  readonly encryption: Encryption;
  /** Every handler has heard of the letter. */
  readonly onNotified: (letterId: string) => Promise<void>;
  /** A message announced no letter that is to be told here. */
  readonly onDropped: (job: Job, reason: DropReason) => void;
  readonly onError: (message: string) => void;
}

/**
 * Tells the application's handlers of each letter on one dead-letter queue. An ordinary BullMQ worker: a letter whose
 * process dies is delivered again by the stall check, one whose handler throws by BullMQ's retries.
 *
 * Of a message only the letter's id is believed. Everything that handlers are told is in the letter's row.
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

  /**
   * Calls every handler that this process has not told of the letter yet. Rejects when one fails, so that BullMQ tries again.
   * In another process, or after a restart, all are called: what stands in the message about that may be anybody's.
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
    // Another process may have one: queues can share a dead-letter queue.
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

  /** Unreadable, it is told again like one whose handler failed: its key may be on its way. */
  #opened(letter: DeadLetterWithPayload): DeadLetterMessage {
    try {
      return messageOfLetter(letter, this.services.encryption.open(letter.payload, letterBinding(letter)));
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
  /** News that a process died with is told again 10 to 15 s later. */
  lockDuration: 10_000,
  stalledInterval: 5_000,
  /** A handler that kills its process is left alone for a while then. */
  maxStalledCount: 10,
  /** The letter itself is in Postgres. What was told is kept for a while, so that it is not put here a second time. */
  removeOnComplete: { age: 24 * 60 * 60, count: 1000 },
};

/** A UUID, as Postgres writes it. */
const LETTER_ID = /^[\da-f]{8}(?:-[\da-f]{4}){3}-[\da-f]{12}$/;

function messageOfLetter(letter: DeadLetterWithPayload, payload: unknown): DeadLetterMessage {
  const {
    id,
    reason,
    queue,
    jobName,
    jobId,
    tenantId,
    operationKey,
    attempts,
    error,
    createdAt,
    stepOf,
    step,
  } = letter;
  return {
    letterId: id,
    reason,
    queue,
    jobName,
    jobId,
    tenantId: tenantId ?? null,
    operationKey: operationKey ?? null,
    ...(stepOf !== undefined && step !== undefined && { stepOf, step }),
    attempts,
    error: error === undefined ? null : { name: error.name, message: error.message },
    payload: payload ?? null,
    createdAt: createdAt.toISOString(),
  };
}

/** The handlers that were told of letters of which others have not heard yet, as far as this process knows. */
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

/** More than are told within the nine minutes of BullMQ's retries where a handler is down. Of others all are told again. */
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

/** BullMQ gets a copy: what is on a queue, and what a server says, may be anything. */
function tellBullmq(error: unknown): never {
  throw isA(error, UnrecoverableError) ? finalErrorForBullmq(error) : errorForBullmq(error);
}

function ignore(): void {}
