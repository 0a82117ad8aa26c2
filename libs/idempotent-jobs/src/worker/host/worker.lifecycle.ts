import { Inject, Injectable } from '@nestjs/common';
import { jobSubjectOf } from '../../operation/job.js';
import { messageOf } from '../../operation/thrown.js';
import type { WorkerHost } from '@nestjs/bullmq';
import { DiscoveryService } from '@nestjs/core';
import type { InstanceWrapper } from '@nestjs/core/injector/instance-wrapper.js';
import type { Job, Worker } from 'bullmq';
import { RunningHandlers } from '../attempt/running-handlers.js';
import { Dependencies } from '../../resilience/dependency/dependencies.js';
import { LibraryLog } from '../../events/library-log.js';
import { isOverWithin } from '../../operation/within.js';
import { ConfigurationError } from '../../operation/errors.js';
import { type ProvidedClass, providedClassOf } from '../../bullmq/bullmq-metadata.js';
import { cutOff } from '../../bullmq/cut-off.js';
import { assertWorkerPrefix } from '../../bullmq/queue-prefix.js';
import { RESOLVED_OPTIONS } from '../../option-checks/resolved-options.token.js';
import { inFrame, outsideOfAnyFrame } from '../../tenancy/frames.js';
import {
  PROCESSOR_DECLARATION,
  type ProcessorDeclaration,
  type ProcessorDefaults,
  resolveProcessorOptions,
} from '../rules/processor.options.js';
import { QueueRegistry } from '../../producer/queue-registry.js';
import { BundleHost } from './bundle-host.js';
import { UNLIMITED } from './idempotent-processor.decorator.js';
import { ProcessorHost } from './processor-host.js';
import { overridden, type ProcessorOverrides } from '../rules/processor-overrides.js';
import type { ProcessorRules } from '../rules/operation-rules.js';

/** A processor whose worker this process runs. */
export interface RunningProcessor {
  readonly rules: ProcessorRules;
  readonly worker: Worker;
  /** Whether the queue is paused while its dependency's circuit is open. */
  readonly pausesQueue: boolean;
}

/** A class with the decorator. */
interface DeclaredProcessor {
  readonly provider: InstanceWrapper;
  readonly processorClass: ProvidedClass;
  readonly declaration: ProcessorDeclaration;
}

/** The application's options that processors use. */
interface WorkerDefaults extends Pick<ProcessorDefaults, 'leaseMs' | 'results' | 'retryPolicies'> {
  readonly processors: ReadonlyMap<string, ProcessorOverrides>;
}

/**
 * Finds the idempotent processors, starts their workers when the application is up, and stops them before it shuts
 * down.
 */
@Injectable()
export class WorkerLifecycle {
  #running: readonly (RunningProcessor & { readonly isStarted: boolean })[] = [];

  constructor(
    private readonly discovery: DiscoveryService,
    private readonly host: ProcessorHost,
    private readonly bundles: BundleHost,
    private readonly handlers: RunningHandlers,
    private readonly queues: QueueRegistry,
    private readonly dependencies: Dependencies,
    private readonly log: LibraryLog,
    @Inject(RESOLVED_OPTIONS) private readonly options: WorkerDefaults,
  ) {}

  /** Empty before {@link prepare}. */
  get running(): readonly RunningProcessor[] {
    return this.#running;
  }

  /**
   * Finds and checks all processors before any worker is started.
   *
   * @throws ConfigurationError if a processor's options, queue or inheritance are wrong
   */
  prepare(): void {
    this.#refuseUnknownQueues();
    const declared = this.discovery.getProviders().flatMap((provider) => this.#declared(provider));
    const registered = declared.map(({ provider, processorClass, declaration }) => {
      if (!this.queues.names.includes(declaration.queue)) {
        throw new ConfigurationError(
          `${processorClass.name} processes queue "${declaration.queue}", which is not registered. Import IdempotentJobsModule.registerQueue("${declaration.queue}") where the processor is provided.`,
        );
      }
      const { queue } = declaration;
      const { options, concurrency } = overridden(
        queue,
        declaration.options,
        this.options.processors.get(queue),
      );
      const rules = resolveProcessorOptions(
        processorClass.name,
        { ...declaration, options },
        {
          ...this.options,
          dependencies: this.dependencies,
          retentionMs: this.queues.retentionOf(queue).completedMs,
        },
      );
      const requestScopedId = provider.isDependencyTreeStatic() ? undefined : provider.id;
      this.host.register(processorClass, { rules, requestScopedId });
      return { provider, rules, declaration, concurrency };
    });
    this.#running = registered.flatMap(({ provider, rules: rulesByPolicy, declaration, concurrency }) => {
      const worker = workerOfHost(provider.instance as WorkerHost);
      const { isStarted, limitsStalls, options } = declaration;
      this.#watchLimits(declaration.queue, worker);
      if (worker === undefined) {
        this.log.warn(
          `${provider.name} has no worker: BullModule's manualRegistration is on. Call BullRegistrar.register() before app.init() ends.`,
        );
        return [];
      }
      assertWorkerPrefix(worker, this.queues.portOf(declaration.queue)?.bullmq);
      keepOutsideOfFrames(worker);
      this.#takeCancellations(worker);
      if (concurrency !== undefined) worker.concurrency = concurrency;
      this.#prepareBundles(declaration.queue, provider.name as string, worker);
      // The ledger must decide about jobs that kill their workers before BullMQ fails them by itself.
      if (!limitsStalls) worker.opts.maxStalledCount = rulesByPolicy.stalls;
      return [{ rules: rulesByPolicy.own, worker, isStarted, pausesQueue: options.pauseQueue === true }];
    });
  }

  start(): void {
    for (const { worker, rules, isStarted } of this.#running) {
      this.#attach(worker, rules);
      if (isStarted) this.#run(worker, rules);
    }
  }

  /** Stops taking jobs, lets running handlers finish for `drainMs`, then aborts them and waits `closeMs` for the rest. */
  async stop(drainMs: number, closeMs: number): Promise<void> {
    this.bundles.drain();
    const closing = Promise.allSettled(this.#running.map(({ worker }) => worker.close()));
    if (await isOverWithin(drainMs, closing)) return;
    this.log.warn(
      `Shutdown: ${this.handlers.size} handlers are still running after ${drainMs} ms; their signals are aborted.`,
    );
    this.handlers.abandonAll('shutdown');
    if (await isOverWithin(closeMs, closing)) return;
    this.log.error(
      `Shutdown: workers did not close within ${closeMs} ms; their jobs will be delivered again.`,
    );
    await isOverWithin(closeMs, Promise.allSettled(this.#running.map(({ worker }) => cutOff(worker))));
  }

  #refuseUnknownQueues(): void {
    const unknown = [...this.options.processors.keys()].filter((queue) => !this.queues.names.includes(queue));
    if (unknown.length === 0) return;
    throw new ConfigurationError(
      `forRoot({ processors }) names ${unknown.map((queue) => `"${queue}"`).join(', ')}, but the queues that are registered here are ${this.queues.names.map((queue) => `"${queue}"`).join(', ') || 'none'}. Name them by the queue of their @IdempotentProcessor().`,
    );
  }

  /** Handlers can limit their queue through its worker or through the queue itself. */
  #watchLimits(queue: string, worker: Worker | undefined): void {
    if (worker !== undefined) this.host.limits.watch(queue, worker);
    const bullmq = this.queues.portOf(queue)?.bullmq;
    if (bullmq !== undefined) this.host.limits.watch(queue, bullmq);
  }

  /** @throws ConfigurationError if BullMQ would limit a rate of jobs that carry any number of operations */
  #prepareBundles(queue: string, name: string, worker: Worker): void {
    if (this.queues.bundlesOf(queue) === undefined) return;
    const { limiter } = worker.opts;
    if (limiter !== undefined && limiter !== UNLIMITED)
      throw new ConfigurationError(
        `${name} has a limiter, which counts jobs, but a job of queue "${queue}" may carry up to ${this.queues.bundlesOf(queue)?.max} operations. Leave out the limiter, or register the queue without \`bundle\`.`,
      );
    this.bundles.prepare(queue, worker);
  }

  /** BullMQ would cancel a job through the signal that it makes for it; the library's handlers have their own. */
  #takeCancellations(worker: Worker): void {
    worker.cancelJob = (jobId) => this.handlers.cancel(worker.name, jobId);
    worker.cancelAllJobs = () => void this.handlers.cancel(worker.name);
  }

  #declared(provider: InstanceWrapper): DeclaredProcessor[] {
    const processorClass = providedClassOf(provider);
    if (processorClass === undefined) return [];
    const declaration = Reflect.getMetadata(PROCESSOR_DECLARATION, processorClass) as
      ProcessorDeclaration | undefined;
    if (declaration === undefined) return [];
    if (!Reflect.hasOwnMetadata(PROCESSOR_DECLARATION, processorClass)) {
      throw new ConfigurationError(
        `${processorClass.name} extends a class with @IdempotentProcessor("${declaration.queue}") and would become a second, unguarded worker of that queue. Decorate ${processorClass.name} itself, and share code through a class without the decorator.`,
      );
    }
    return [{ provider, processorClass, declaration }];
  }

  #attach(worker: Worker, rules: ProcessorRules): void {
    // This event also reports a lost BullMQ lock. The handler goes on: its right to run is the ledger's lease, under
    // which another delivery of the job is deferred.
    worker.on('error', (error) => this.log.trouble(`Worker of queue "${rules.queue}"`, error));
    worker.on('failed', (job, error) => {
      if (job?.finishedOn !== undefined && !this.host.wasDelivered(job)) this.#writeLetter(rules, job, error);
    });
  }

  #writeLetter(rules: ProcessorRules, job: Job, error: Error): void {
    this.host.writeUnprocessed(rules, job, error).catch((cause: unknown) => {
      this.log.trouble(
        `Job ${jobSubjectOf(job).jobId} of queue "${rules.queue}" has no dead letter yet; the sweep will write it`,
        cause,
      );
    });
  }

  #run(worker: Worker, rules: ProcessorRules): void {
    worker
      .run()
      .catch((error: unknown) =>
        this.log.error(`Worker of queue "${rules.queue}" stopped: ${messageOf(error)}`),
      );
  }
}

/**
 * Runs a worker outside of any frame: one that is started or resumed inside of a frame would keep it for everything it
 * does. Its listeners (`@OnWorkerEvent()`) run in no frame either: the job that they get names its tenant.
 */
function keepOutsideOfFrames(worker: Worker): void {
  const [run, resume, emit] = [worker.run.bind(worker), worker.resume.bind(worker), worker.emit.bind(worker)];
  worker.run = () => outsideOfAnyFrame(run);
  worker.resume = () => outsideOfAnyFrame(resume);
  worker.emit = (...told) => inFrame(undefined, () => emit(...told));
}

function workerOfHost(instance: WorkerHost): Worker | undefined {
  try {
    return instance.worker;
  } catch {
    return undefined;
  }
}
