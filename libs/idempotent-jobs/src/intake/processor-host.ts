import type { WorkerHost } from '@nestjs/bullmq';
import type { Job } from 'bullmq';
import { isHandBack, QueueLimits, watchMoves } from '../bullmq/hand-back.js';
import { type Provenance, provenanceOf } from '../enqueue/provenance.js';
import { unprocessedReasonOf } from '../bullmq/unprocessed.js';
import type { DeliveryInProgress, JobPipeline } from '../job-pipeline.js';
import type { CurrentOperation } from '../execute/current-operation.js';
import type { HoldCause } from '../dependency/hold.js';
import { UsageError } from '../operation/errors.js';
import type { LibraryLog } from '../observe/library-log.js';
import { settle } from '../settle/settle.js';
import type { Delivery } from './delivery.js';
import type { EnhancerChains, ProcessMethod } from './enhancer-chain.js';
import type { PolicedSettings } from './policed-settings.js';
import type { ProcessorSettings } from './processor.settings.js';
import { workerIdentity } from './worker-identity.js';

/* Processors of which it was checked at boot that they have the method. */
type Reconciling = WorkerHost & { reconcile(operation: CurrentOperation): unknown };
type StandingIn = WorkerHost & { fallback(operation: CurrentOperation, reason: HoldCause): unknown };

/** A processor of this application. */
export interface RegisteredProcessor {
  readonly settings: PolicedSettings;
  /** Set for request-scoped processors: the provider's id. */
  readonly requestScopedId: string | undefined;
}

/** Where BullMQ hands deliveries to the library: runs each through the pipeline and tells BullMQ how it ended. */
export class ProcessorHost {
  /** What handlers hand their jobs back by. */
  readonly limits = new QueueLimits();
  readonly #processors = new Map<unknown, RegisteredProcessor>();
  readonly #bare = new Map<unknown, boolean>();
  readonly #progress = new WeakMap<Job, DeliveryInProgress>();
  readonly #delivered = new WeakSet<Job>();
  readonly #nextWorkerId = workerIdentity();
  readonly #missed = new Set<string>();

  constructor(
    private readonly pipeline: JobPipeline,
    private readonly chains: EnhancerChains,
    private readonly log: LibraryLog,
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
    const processor = this.#processors.get(instance.constructor);
    if (processor === undefined) {
      throw new UsageError(
        `${instance.constructor.name} received a job before the application was up. Start workers after app.init().`,
      );
    }
    this.#delivered.add(job);
    watchMoves(job);
    const { requestScopedId } = processor;
    const provenance = provenanceOf(job);
    const settings = this.#settingsOf(processor, job, provenance);
    const delivery: Delivery = {
      job,
      provenance,
      cancellation: signal,
      processor: settings,
      handsBack: (error) => isHandBack(error, job, this.limits),
      reconcile: settings.reconcile && ((operation) => (instance as Reconciling).reconcile(operation)),
      fallback: settings.hasFallback
        ? (operation, reason) => (instance as StandingIn).fallback(operation, reason)
        : undefined,
      workerId: this.#nextWorkerId(),
    };
    const isBare = this.#isBare(instance.constructor, original);
    const settlement = await this.pipeline.deliver(delivery, (progress) => {
      // A handler that takes no signal does not get one made for it.
      const attemptSignal = original.length >= 3 ? progress.attempt.signal : undefined;
      if (isBare)
        return this.pipeline.attempt(progress, () => original.call(instance, job, token, attemptSignal));
      this.#progress.set(job, progress);
      const chain = this.chains.chainOf(instance, original, requestScopedId, job);
      return progress.attempt.follow(chain(job, token, attemptSignal));
    });
    return settle(job, token, settlement);
  }

  /** Called by the interceptor for the job it was handed. */
  attempt(job: Job, handler: () => Promise<unknown>): Promise<unknown> {
    const progress = this.#progress.get(job);
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
  async buryUnprocessed(processor: ProcessorSettings, job: Job, error: Error): Promise<void> {
    const delivery: Delivery = {
      job,
      provenance: provenanceOf(job),
      cancellation: undefined,
      processor,
      // Only its letter is to be written.
      handsBack: undefined,
      reconcile: undefined,
      fallback: undefined,
      workerId: this.#nextWorkerId(),
    };
    await this.pipeline.buryUnprocessed(delivery, unprocessedReasonOf(error.message) ?? 'crash_loop', error);
  }

  /** A policy that only the producer's application knows: said once, and the processor's own in its place. */
  #settingsOf({ settings }: RegisteredProcessor, job: Job, provenance: Provenance): ProcessorSettings {
    const { settings: found, unknownPolicy } = settings.of(job, provenance);
    const missed = unknownPolicy?.slice(0, MAX_NAME);
    if (missed !== undefined && this.#missed.size < MAX_MISSED && !this.#missed.has(missed)) {
      this.#missed.add(missed);
      this.log.warn(
        `Jobs of queue "${job.queueName}" ask for retry policy ${JSON.stringify(missed)}, which forRoot({ retryPolicies }) of this application does not have; they run as if they had not asked.`,
      );
    }
    return found;
  }

  #isBare(processorClass: object, original: ProcessMethod): boolean {
    let isBare = this.#bare.get(processorClass);
    if (isBare === undefined) {
      isBare = this.chains.isEmpty(processorClass, original);
      this.#bare.set(processorClass, isBare);
    }
    return isBare;
  }
}

/** Whoever writes to the queue can make up names without end. */
const MAX_MISSED = 100;
const MAX_NAME = 100;
