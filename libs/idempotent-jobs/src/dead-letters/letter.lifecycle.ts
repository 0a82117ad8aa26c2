import { Injectable } from '@nestjs/common';
import { DiscoveryService } from '@nestjs/core';
import type { InstanceWrapper } from '@nestjs/core/injector/instance-wrapper.js';
import { JobEvents } from '../events/job-events.js';
import { QueueRegistry } from '../producer/queue-registry.js';
import { processedQueueOf, type ProvidedClass, providedClassOf } from '../bullmq/bullmq-metadata.js';
import { ConfigurationError } from '../operation/errors.js';
import { LibraryLog } from '../events/library-log.js';
import { Encryption } from '../ledger/encryption/encryption.js';
import { TenantContext } from '../tenancy/tenant-context.js';
import { type LetterHandler, LetterListener, NotificationStore } from './letter.listener.js';
import { LetterQueries } from './letter.queries.js';
import { letterHandlersOf } from './on-dead-letter.decorator.js';

/** A handler, and the queue that it was declared for. */
interface DeclaredHandler extends LetterHandler {
  readonly queue: string | undefined;
}

/**
 * A queue's letters count as listened to for a day after an application has said so; this leaves room for failed tries.
 */
const LISTEN_EVERY_MS = 60 * 60 * 1000;

/** Finds the methods with `@OnDeadLetter()`, and runs a listener on each dead-letter queue that one of them needs. */
@Injectable()
export class LetterLifecycle {
  #listeners: LetterListener[] = [];
  #notified: readonly string[] = [];
  #timer: NodeJS.Timeout | undefined;

  constructor(
    private readonly discovery: DiscoveryService,
    private readonly queues: QueueRegistry,
    private readonly tenants: TenantContext,
    private readonly store: NotificationStore,
    private readonly letters: LetterQueries,
    private readonly encryption: Encryption,
    private readonly log: LibraryLog,
    private readonly events: JobEvents,
  ) {}

  /** Checks the handlers before anything is started. @throws ConfigurationError as `@OnDeadLetter()` says */
  prepare(): void {
    const handlers = this.#handlers();
    const handlersOf = (queue: string): DeclaredHandler[] =>
      handlers.filter((handler) => handler.queue === undefined || handler.queue === queue);
    this.#notified = this.queues.names.filter((queue) => handlersOf(queue).length > 0);
    const deadLetterQueues = new Set(this.#notified.map((queue) => this.queues.deadLetterQueueOf(queue)));
    for (const deadLetterQueue of deadLetterQueues) this.#refuseRivals(deadLetterQueue, handlersOf);
    this.#listeners = [...deadLetterQueues].flatMap((name) => {
      const port = this.queues.portOf(name);
      if (port === undefined) return [];
      const { letters, store, queues, tenants, encryption, events, log } = this;
      return [new LetterListener(port, handlersOf, letters, store, queues, tenants, encryption, events, log)];
    });
  }

  async start(): Promise<void> {
    await this.store.doNotListen(this.#processed());
    await this.store.listen(this.#notified);
    this.#timer = setInterval(() => {
      this.store
        .listen(this.#notified)
        .catch((error: unknown) =>
          this.log.trouble('That letters are heard of could not be noted; tried again in an hour', error),
        );
    }, LISTEN_EVERY_MS);
    this.#timer.unref();
    for (const listener of this.#listeners) listener.start();
  }

  async stop(drainMs: number, closeMs: number): Promise<void> {
    clearInterval(this.#timer);
    await Promise.all(this.#listeners.map((listener) => listener.stop(drainMs, closeMs)));
  }

  /** Source queues whose dead-letter queue has a processor of this application. */
  #processed(): string[] {
    return this.queues.names.filter(
      (queue) => this.#processorOf(this.queues.deadLetterQueueOf(queue)) !== undefined,
    );
  }

  /** The class of this application with a `@Processor()` of that queue. */
  #processorOf(queue: string): ProvidedClass | undefined {
    return this.discovery
      .getProviders()
      .map(providedClassOf)
      .find((candidate) => candidate !== undefined && processedQueueOf(candidate) === queue);
  }

  #handlers(): DeclaredHandler[] {
    for (const controller of this.discovery.getControllers()) refuseController(controller);
    const instances = new Set<unknown>();
    const names = new Map<string, number>();
    return this.discovery.getProviders().flatMap((provider) => {
      const providerClass = providedClassOf(provider);
      const declarations = providerClass?.prototype ? letterHandlersOf(providerClass.prototype) : [];
      // An alias (`useExisting`) shares the instance, and is no second handler.
      if (providerClass === undefined || declarations.length === 0 || instances.has(provider.instance))
        return [];
      if (!provider.isDependencyTreeStatic() || provider.isTransient) {
        throw new ConfigurationError(
          `${providerClass.name} has methods with @OnDeadLetter(), but no single instance to call them on: it, or what it injects, is request-scoped or transient. Move them to a provider of default scope.`,
        );
      }
      instances.add(provider.instance);
      return declarations.map(({ method, queue }) => {
        const title = `${providerClass.name}.${String(method)}`;
        if (queue !== undefined && !this.queues.names.includes(queue)) {
          throw new ConfigurationError(
            `@OnDeadLetter("${queue}") on ${title}: the queue is not registered. Import IdempotentJobsModule.registerQueue("${queue}"), or name the queue whose jobs die, not its dead-letter queue.`,
          );
        }
        const instance = provider.instance as Record<string | symbol, LetterHandler['tell']>;
        return { name: unique(title, names), queue, tell: (letter) => instance[method]?.(letter) };
      });
    });
  }

  /**
   * Refuses a dead-letter queue that has a processor in this application too, or letters of a queue without a handler.
   */
  #refuseRivals(deadLetterQueue: string, handlersOf: (queue: string) => DeclaredHandler[]): void {
    const sources = this.queues.names.filter(
      (queue) => this.queues.deadLetterQueueOf(queue) === deadLetterQueue,
    );
    const names = sources.flatMap((queue) => handlersOf(queue).map(({ name }) => name));
    const handlers = [...new Set(names)].join(', ');
    const rival = this.#processorOf(deadLetterQueue);
    if (rival !== undefined) {
      throw new ConfigurationError(
        `${rival.name} processes queue "${deadLetterQueue}", and @OnDeadLetter() on ${handlers} listens there: each would take letters from the other. Keep one of the two; @OnDeadLetter() without a queue listens to every registered one.`,
      );
    }
    const unnotified = sources.filter((queue) => handlersOf(queue).length === 0);
    if (unnotified.length > 0) {
      throw new ConfigurationError(
        `Queue "${unnotified[0]}" shares dead-letter queue "${deadLetterQueue}" with queues that @OnDeadLetter() on ${handlers} listens to, but nobody is told of its letters. Add @OnDeadLetter("${unnotified[0]}"), or give it a dead-letter queue of its own.`,
      );
    }
  }
}

function refuseController(controller: InstanceWrapper): void {
  const controllerClass = providedClassOf(controller);
  if (controllerClass === undefined || letterHandlersOf(controllerClass.prototype).length === 0) return;
  throw new ConfigurationError(
    `${controllerClass.name} is a controller and cannot be told of dead letters. Move its methods with @OnDeadLetter() to a provider.`,
  );
}

/** A class may be provided twice, and both instances are notified of a letter. */
function unique(title: string, seen: Map<string, number>): string {
  const count = (seen.get(title) ?? 0) + 1;
  seen.set(title, count);
  return count === 1 ? title : `${title}#${count}`;
}
