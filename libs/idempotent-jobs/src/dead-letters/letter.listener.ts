import type { DropReason } from '../operation/reasons.js';
import { type Job, UnrecoverableError, Worker } from 'bullmq';
import type { JobEvents } from '../events/job-events.js';
import type { LibraryLog } from '../events/library-log.js';
import type { QueueRegistry } from '../producer/queue-registry.js';
import { cutOff } from '../bullmq/cut-off.js';
import type { QueuePort } from '../bullmq/queue-port.js';
import { errorForBullmq, finalErrorForBullmq } from '../bullmq/error-for-bullmq.js';
import { isOverWithin } from '../operation/within.js';
import { isA, messageOf } from '../operation/thrown.js';
import { jobSubjectOf } from '../operation/job.js';
import { letterBinding, type Encryption } from '../ledger/encryption/encryption.js';
import { outsideOfAnyFrame } from '../tenancy/frames.js';
import type { TenantContext } from '../tenancy/tenant-context.js';
import type { DeadLetterWithPayload } from './dead-letter.js';
import { type LetterQueries, messageOfLetter } from './letter.queries.js';
import { DEAD_LETTER_JOB_NAME, type DeadLetterMessage } from '../operation/dead-letter-message.js';
import { Injectable } from '@nestjs/common';
import { Database } from '../ledger/postgres/database.js';
import { statement } from '../ledger/postgres/statement.js';

/** Marks a letter as notified: it need not be put on its dead-letter queue again. */
const MARK_NOTIFIED = statement(
  'mark_notified',
  `UPDATE {schema}.dead_letters SET notified_at = clock_timestamp(), dispatch_due_at = NULL WHERE id = :letterId AND notified_at IS NULL`,
);

/**
 * Notes that an application listens to the letters of these queues. Letters announced before any application listened are
 * announced again.
 */
const LISTEN = statement(
  'listen',
  `
WITH known AS (
  SELECT queue, COALESCE(listened_at > clock_timestamp() - interval '1 day', false) AS was_heard
  FROM {schema}.job_queues WHERE queue = ANY (:queues) ORDER BY queue FOR UPDATE
), listening AS (
  UPDATE {schema}.job_queues q SET listened_at = clock_timestamp() FROM known k WHERE q.queue = k.queue
)
UPDATE {schema}.dead_letters l SET dispatch_due_at = clock_timestamp()
FROM known k
WHERE NOT k.was_heard AND l.queue = k.queue
  AND l.resolved_at IS NULL AND l.notified_at IS NULL AND l.dispatch_due_at IS NULL
`,
);

/** Notes that a processor of the application takes the letters: the library cannot tell which ones it has handled. */
const DO_NOT_LISTEN = statement(
  'do_not_listen',
  'UPDATE {schema}.job_queues SET listened_at = NULL WHERE queue = ANY (:queues) AND listened_at IS NOT NULL',
);

/** The dead-letter queue of a source queue, as the application that registered it last has set it. */
const DEAD_LETTER_QUEUE_OF = statement(
  'dead_letter_queue_of',
  'SELECT dead_letter_queue FROM {schema}.job_queues WHERE queue = :queue',
);

/** Records of which letters and queues the application is notified. */
@Injectable()
export class NotificationStore {
  constructor(private readonly database: Database) {}

  async markNotified(letterId: string): Promise<void> {
    await this.database.run(MARK_NOTIFIED.with({ letterId }));
  }

  /** Undefined when no application has registered that queue. */
  async deadLetterQueueOf(queue: string): Promise<string | undefined> {
    const [row] = await this.database.run<{ dead_letter_queue: string }>(
      DEAD_LETTER_QUEUE_OF.with({ queue }),
    );
    return row?.dead_letter_queue;
  }

  /** Must be called again at least once a day while the application listens. */
  async listen(queues: readonly string[]): Promise<void> {
    if (queues.length > 0) await this.database.run(LISTEN.with({ queues }));
  }

  async doNotListen(queues: readonly string[]): Promise<void> {
    if (queues.length > 0) await this.database.run(DO_NOT_LISTEN.with({ queues }));
  }
}

/** A method of the application that is notified of dead letters. */
export interface LetterHandler {
  /** `Class.method`; unique in the application. */
  readonly name: string;
  readonly tell: (letter: DeadLetterMessage) => unknown;
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
    /** The handlers to notify of a source queue's letters. */
    private readonly handlersOf: (queue: string) => readonly LetterHandler[],
    private readonly letters: LetterQueries,
    private readonly store: NotificationStore,
    private readonly queues: QueueRegistry,
    private readonly tenants: TenantContext,
    private readonly encryption: Encryption,
    private readonly events: JobEvents,
    private readonly log: LibraryLog,
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
        this.log.trouble(`Listener of queue "${this.port.name}": ${messageOf(error)}`),
      );
      worker
        .run()
        .catch((error: unknown) =>
          this.log.trouble(`Listener of queue "${this.port.name}" stopped: ${messageOf(error)}`),
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
    this.log.trouble(
      `Shutdown: handlers of letters on "${this.port.name}" are still running after ${drainMs} ms; the letters will be told again.`,
    );
    await isOverWithin(closeMs, cutOff(worker).catch(ignore));
  }

  /**
   * Calls every handler that this process has not notified of the letter yet. Rejects when one fails, so that BullMQ
   * tries again. Another process, or this one after a restart, calls all handlers: anyone may have written the message,
   * so it is not trusted to say which ones were notified.
   */
  async tell(job: Job): Promise<void> {
    if (job.name !== DEAD_LETTER_JOB_NAME) {
      this.#drop(job, 'malformed');
      const { jobName } = jobSubjectOf(job);
      throw new UnrecoverableError(`Job "${jobName}" on queue "${this.port.name}" is not a dead letter.`);
    }
    const found = await this.#find(job);
    if (typeof found === 'string') return this.#drop(job, found);
    const handlers = this.handlersOf(found.queue);
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
          this.log.trouble(failureOf(name, letter, job, error));
        }
      }),
    );
    if (failed.length === 0) {
      await this.store.markNotified(letter.letterId);
      this.#notified.forget(letter.letterId);
      return;
    }
    this.#notified.keep(letter.letterId, notified);
    throw new Error(`${failed.join(', ')} failed.`);
  }

  /** The message announces no letter that this listener may notify handlers of. */
  #drop(job: Job, reason: DropReason): void {
    this.events.emit({ kind: 'letter_dropped', ...jobSubjectOf(job), reason });
  }

  async #find(job: Job): Promise<DeadLetterWithPayload | DropReason> {
    const { letterId } = (job.data ?? {}) as { letterId?: unknown };
    if (typeof letterId !== 'string' || !LETTER_ID.test(letterId)) return 'malformed';
    const letter = await this.letters.get(letterId);
    if (letter === undefined) return 'unknown';
    const { queues, store } = this;
    // The ledger knows the queues of other applications.
    const announcedOn = queues.names.includes(letter.queue)
      ? queues.deadLetterQueueOf(letter.queue)
      : await store.deadLetterQueueOf(letter.queue);
    return announcedOn === this.port.name ? letter : 'elsewhere';
  }

  /** The letter, decrypted. An unreadable one throws and is delivered again later: its key may be on its way. */
  #opened(letter: DeadLetterWithPayload): DeadLetterMessage {
    try {
      return messageOfLetter({
        ...letter,
        payload: this.encryption.open(letter.payload, letterBinding(letter)),
      });
    } catch (error) {
      this.log.trouble(
        `Dead letter ${letter.id} of queue "${letter.queue}" is told later: ${messageOf(error)}`,
      );
      throw error;
    }
  }

  #inFrameOf(letter: DeadLetterMessage, fn: () => unknown): unknown {
    return letter.tenantId === null ? outsideOfAnyFrame(fn) : this.tenants.runJob(letter.tenantId, fn);
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
