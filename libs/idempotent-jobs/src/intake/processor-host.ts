import type { WorkerHost } from '@nestjs/bullmq';
import { ContextIdFactory, ExternalContextCreator } from '@nestjs/core';
import type { Job } from 'bullmq';
import { UsageError } from '../operation/errors.js';
import type { DeliveryInProgress, JobPipeline } from '../job-pipeline.js';
import { settle } from '../settle/settle.js';
import type { Delivery } from './delivery.js';
import type { ProcessorSettings } from './processor.settings.js';
import { workerIdentity } from './worker-identity.js';

/** A processor's `process()`. */
export type ProcessMethod = (job: Job, token?: string, signal?: AbortSignal) => Promise<unknown>;

/** A processor of this application. */
export interface RegisteredProcessor {
  readonly settings: ProcessorSettings;
  /** Set for request-scoped processors: the provider's id, by which Nest finds its enhancers per job. */
  readonly requestScopedId: string | undefined;
}

/**
 * Where BullMQ hands deliveries to the library: runs each through the pipeline, with the processor's guards and
 * interceptors as a real Nest enhancer chain (context type `'bullmq'`; `getArgs()` are job, token and signal).
 */
export class ProcessorHost {
  readonly #processors = new Map<unknown, RegisteredProcessor>();
  readonly #chains = new WeakMap<object, ProcessMethod>();
  readonly #progress = new WeakMap<Job, DeliveryInProgress>();
  readonly #delivered = new WeakSet<Job>();
  readonly #nextWorkerId = workerIdentity();

  constructor(
    private readonly pipeline: JobPipeline,
    private readonly contexts: ExternalContextCreator,
  ) {}

  register(processorClass: unknown, processor: RegisteredProcessor): void {
    this.#processors.set(processorClass, processor);
  }

  /** A delivery, from BullMQ's hand. Returns or throws what BullMQ understands. */
  async handle(
    instance: WorkerHost,
    original: ProcessMethod,
    job: Job,
    token?: string,
    signal?: AbortSignal,
  ): Promise<unknown> {
    const processor = this.#processorOf(instance);
    this.#delivered.add(job);
    const delivery = this.#delivery(processor, job, token, signal);
    const settlement = await this.pipeline.deliver(delivery, async (progress) => {
      this.#progress.set(progress.view, progress);
      return this.#chainOf(instance, original, processor, job)(progress.view, token, progress.attempt.signal);
    });
    return settle(job, token, settlement);
  }

  /** Called by the interceptor for the job it was handed. */
  attempt(view: Job, handler: () => Promise<unknown>): Promise<unknown> {
    const progress = this.#progress.get(view);
    if (progress === undefined) {
      throw new UsageError(
        'IdempotencyInterceptor works only on classes with @IdempotentProcessor(), which puts it there. Remove it from @UseInterceptors().',
      );
    }
    return this.pipeline.attempt(progress, handler);
  }

  /** Whether the processor was called for this job object, as opposed to BullMQ failing it by itself. */
  wasDelivered(job: Job): boolean {
    return this.#delivered.has(job);
  }

  /** A job that BullMQ has failed without calling the processor. */
  async buryUnprocessed(settings: ProcessorSettings, job: Job, error: Error): Promise<void> {
    const delivery: Delivery = {
      job,
      token: undefined,
      cancellation: undefined,
      processor: settings,
      workerId: this.#nextWorkerId(),
    };
    await this.pipeline.buryUnprocessed(delivery, error);
  }

  #delivery(
    { settings }: RegisteredProcessor,
    job: Job,
    token: string | undefined,
    signal: AbortSignal | undefined,
  ): Delivery {
    return { job, token, cancellation: signal, processor: settings, workerId: this.#nextWorkerId() };
  }

  #processorOf(instance: WorkerHost): RegisteredProcessor {
    const processor = this.#processors.get(instance.constructor);
    if (processor === undefined) {
      throw new UsageError(
        `${instance.constructor.name} received a job before the application was up. Start workers after app.init().`,
      );
    }
    return processor;
  }

  /** Made once per instance; a request-scoped processor is another instance for every job, with enhancers of its own. */
  #chainOf(
    instance: WorkerHost,
    original: ProcessMethod,
    { requestScopedId }: RegisteredProcessor,
    job: Job,
  ): ProcessMethod {
    let chain = this.#chains.get(instance);
    if (chain === undefined) {
      chain = this.contexts.create(
        instance,
        original as (...args: unknown[]) => unknown,
        'process',
        undefined,
        undefined,
        requestScopedId === undefined ? undefined : ContextIdFactory.getByRequest(job),
        requestScopedId,
        { interceptors: true, guards: true, filters: false },
        'bullmq',
      ) as ProcessMethod;
      this.#chains.set(instance, chain);
    }
    return chain;
  }
}
