import { Inject, Injectable } from '@nestjs/common';
import type { Queue } from 'bullmq';
import type { QueueContents } from '../bullmq/queue-contents.js';
import { QueuePort } from '../bullmq/queue-port.js';
import { LibraryLog } from '../events/library-log.js';
import { ConfigurationError } from '../operation/errors.js';
import { optionChecks } from '../option-checks/option-checks.js';
import { RESOLVED_OPTIONS } from '../option-checks/resolved-options.token.js';
import { resolveRetention, type Retention, type RetentionOptions } from '../ledger/retention.options.js';
import { QueueServices } from './acceptance.js';
import { type BundleRules, MAX_BUNDLE } from './bundle.js';
import { IdempotentQueue } from './idempotent-queue.js';

interface RegisteredQueue {
  readonly queue: IdempotentQueue;
  readonly deadLetterQueue: string;
  readonly retention: Retention;
  readonly bundle: BundleRules | undefined;
}

/** What a queue is registered with. */
export interface QueueSettings {
  readonly retention?: RetentionOptions | undefined;
  readonly bundle?: BundleRules | undefined;
}

/** The idempotent queues of this application, with their dead-letter queues. */
@Injectable()
export class QueueRegistry {
  readonly #queues = new Map<string, RegisteredQueue>();
  readonly #ports = new Map<string, QueuePort>();
  readonly #heard = new WeakSet<Queue>();

  constructor(
    private readonly services: QueueServices,
    private readonly log: LibraryLog,
    @Inject(RESOLVED_OPTIONS) private readonly options: { readonly retention: Retention },
  ) {}

  /** Registering a queue again, from another module, returns the same one. */
  register(queue: Queue, deadLetterQueue: Queue, { retention, bundle }: QueueSettings = {}): IdempotentQueue {
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
      const other = JSON.stringify(this.#retentionFor(queue.name, retention));
      if (retention !== undefined && other !== JSON.stringify(known.retention)) {
        throw new ConfigurationError(
          `Queue "${queue.name}" is registered with two retentions. Give the same one in every registerQueue(), or give it once, where the queue is registered first.`,
        );
      }
      if (bundle !== undefined && bundle.max !== known.bundle?.max) {
        throw new ConfigurationError(
          `Queue "${queue.name}" is registered with two \`bundle\` options. Give the same one in every registerQueue(), or give it once, where the queue is registered first.`,
        );
      }
      return known.queue;
    }
    const rules = bundleRulesOf(queue.name, bundle);
    const port = new QueuePort(queue);
    const idempotentQueue = new IdempotentQueue(queue.name, port, this.services, rules);
    this.#ports.set(queue.name, port).set(deadLetterQueue.name, new QueuePort(deadLetterQueue));
    this.#queues.set(queue.name, {
      queue: idempotentQueue,
      deadLetterQueue: deadLetterQueue.name,
      retention: this.#retentionFor(queue.name, retention),
      bundle: rules,
    });
    return idempotentQueue;
  }

  /** @throws ConfigurationError if BullMQ has no tables for a queue in its Postgres */
  async assertTables(): Promise<void> {
    for (const port of this.#ports.values()) await port.assertTables();
  }

  /** The queues that operations are enqueued to, without the dead-letter queues. */
  get names(): readonly string[] {
    return [...this.#queues.keys()];
  }

  /** Also finds dead-letter queues. */
  portOf(queue: string): QueuePort | undefined {
    return this.#ports.get(queue);
  }

  /** What BullMQ holds of a queue. @throws as {@link deadLetterQueueOf} */
  contentsOf(queue: string): QueueContents {
    this.#known(queue);
    return (this.portOf(queue) as QueuePort).contents;
  }

  queueOf(queue: string): IdempotentQueue | undefined {
    return this.#queues.get(queue)?.queue;
  }

  /** @throws ConfigurationError for a queue that was not registered */
  deadLetterQueueOf(queue: string): string {
    return this.#known(queue).deadLetterQueue;
  }

  /** Undefined where each operation has a job of its own. */
  bundlesOf(queue: string): BundleRules | undefined {
    return this.#queues.get(queue)?.bundle;
  }

  /** The queue's own retention; the module's fills in what it leaves out. @throws as {@link deadLetterQueueOf} */
  retentionOf(queue: string): Retention {
    return this.#known(queue).retention;
  }

  /** BullMQ prints each error of a queue without a listener. Where the application listens, it reports the error itself. */
  #hear(queue: Queue): void {
    if (this.#heard.has(queue)) return;
    this.#heard.add(queue);
    queue.on('error', (error) => {
      if (queue.listenerCount('error') === 1) this.log.trouble(`Queue "${queue.name}"`, error);
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

  #retentionFor(queue: string, options: RetentionOptions | undefined): Retention {
    const checks = optionChecks(`registerQueue({ name: "${queue}" })`);
    const retention = resolveRetention(checks, options, this.options.retention);
    checks.throwIfAny((message) => new ConfigurationError(message));
    return retention;
  }
}

function bundleRulesOf(queue: string, bundle: BundleRules | undefined): BundleRules | undefined {
  if (bundle === undefined) return undefined;
  const max = (bundle as BundleRules | null)?.max;
  if (Number.isInteger(max) && (max as number) >= 2 && (max as number) <= MAX_BUNDLE)
    return { max: max as number };
  throw new ConfigurationError(
    `registerQueue({ name: "${queue}" }): bundle.max is ${String(max)}, but must be a whole number from 2 to ${MAX_BUNDLE}.`,
  );
}
