import type { Queue } from 'bullmq';
import { QueuePort } from '../bullmq/queue-port.js';
import { ConfigurationError } from '../operation/errors.js';
import { IdempotentQueue, type QueueServices } from './idempotent-queue.js';

/** The idempotent queues of this application, with their dead-letter queues. */
export class QueueRegistry {
  readonly #queues = new Map<string, { readonly queue: IdempotentQueue; readonly deadLetterQueue: string }>();
  readonly #ports = new Map<string, QueuePort>();

  constructor(private readonly services: QueueServices) {}

  /** Registering a queue again, from another module, gives the same one. */
  register(queue: Queue, deadLetterQueue: Queue): IdempotentQueue {
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
      return known.queue;
    }
    const port = new QueuePort(queue);
    const idempotentQueue = new IdempotentQueue(queue.name, port, this.services);
    this.#ports.set(queue.name, port).set(deadLetterQueue.name, new QueuePort(deadLetterQueue));
    this.#queues.set(queue.name, { queue: idempotentQueue, deadLetterQueue: deadLetterQueue.name });
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

  /** @throws ConfigurationError for a queue that was not registered */
  deadLetterQueueOf(queue: string): string {
    const known = this.#queues.get(queue);
    if (known === undefined)
      throw new ConfigurationError(
        `Queue "${queue}" is not registered. Add IdempotentJobsModule.registerQueue("${queue}").`,
      );
    return known.deadLetterQueue;
  }
}
