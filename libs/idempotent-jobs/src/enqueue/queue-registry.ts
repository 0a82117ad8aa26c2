import type { Queue } from 'bullmq';
import { QueuePort } from '../bullmq/queue-port.js';
import { ConfigurationError } from '../operation/errors.js';
import { optionChecks } from '../option-checks.js';
import { resolveRetention, type Retention, type RetentionOptions } from '../retention/retention.options.js';
import { IdempotentQueue, type QueueServices } from './idempotent-queue.js';

interface RegisteredQueue {
  readonly queue: IdempotentQueue;
  readonly deadLetterQueue: string;
  readonly retention: Retention;
}

/** The idempotent queues of this application, with their dead-letter queues. */
export class QueueRegistry {
  readonly #queues = new Map<string, RegisteredQueue>();
  readonly #ports = new Map<string, QueuePort>();
  readonly #heard = new WeakSet<Queue>();

  constructor(
    private readonly services: QueueServices,
    private readonly defaultRetention: Retention,
  ) {}

  /** Registering a queue again, from another module, gives the same one. */
  register(queue: Queue, deadLetterQueue: Queue, retention?: RetentionOptions): IdempotentQueue {
    this.#hear(queue);
    this.#hear(deadLetterQueue);
    if (queue.name === deadLetterQueue.name) {
      throw new ConfigurationError(
        `Queue "${queue.name}" cannot be its own dead-letter queue: its letters would die in turn, without end. Name another one.`,
      );
    }
    const known = this.#queues.get(queue.name);
    if (known !== undefined) {
      if (known.deadLetterQueue !== deadLetterQueue.name) {
        throw new ConfigurationError(
          `Queue "${queue.name}" is registered with two dead-letter queues, "${known.deadLetterQueue}" and "${deadLetterQueue.name}". Name the same one in every registerQueue().`,
        );
      }
      const other = JSON.stringify(this.#retention(queue.name, retention));
      if (retention !== undefined && other !== JSON.stringify(known.retention)) {
        throw new ConfigurationError(
          `Queue "${queue.name}" is registered with two retentions. Give the same one in every registerQueue(), or give it once, where the queue is registered first.`,
        );
      }
      return known.queue;
    }
    const port = new QueuePort(queue);
    const idempotentQueue = new IdempotentQueue(queue.name, port, this.services);
    this.#ports.set(queue.name, port).set(deadLetterQueue.name, new QueuePort(deadLetterQueue));
    this.#queues.set(queue.name, {
      queue: idempotentQueue,
      deadLetterQueue: deadLetterQueue.name,
      retention: this.#retention(queue.name, retention),
    });
    return idempotentQueue;
  }

  /** The queues that operations are enqueued to; dead-letter queues are not among them. */
  get names(): readonly string[] {
    return [...this.#queues.keys()];
  }

  /** Also of dead-letter queues. */
  portOf(queue: string): QueuePort | undefined {
    return this.#ports.get(queue);
  }

  queueOf(queue: string): IdempotentQueue | undefined {
    return this.#queues.get(queue)?.queue;
  }

  /** @throws ConfigurationError for a queue that was not registered */
  deadLetterQueueOf(queue: string): string {
    return this.#known(queue).deadLetterQueue;
  }

  /** The module's retention, as far as the queue has none of its own. @throws as {@link deadLetterQueueOf} */
  retentionOf(queue: string): Retention {
    return this.#known(queue).retention;
  }

  /** BullMQ prints each error of a queue that nobody listens to. Where the application listens, it is the one to tell. */
  #hear(queue: Queue): void {
    if (this.#heard.has(queue)) return;
    this.#heard.add(queue);
    queue.on('error', (error) => {
      if (queue.listenerCount('error') === 1) this.services.onError(`Queue "${queue.name}"`, error);
    });
  }

  #known(queue: string): RegisteredQueue {
    const known = this.#queues.get(queue);
    if (known === undefined)
      throw new ConfigurationError(
        `Queue "${queue}" is not registered. Add IdempotentJobsModule.registerQueue("${queue}").`,
      );
    return known;
  }

  #retention(queue: string, options: RetentionOptions | undefined): Retention {
    const checks = optionChecks(`registerQueue({ name: "${queue}" })`);
    const retention = resolveRetention(checks, options, this.defaultRetention);
    checks.throwIfAny((message) => new ConfigurationError(message));
    return retention;
  }
}
