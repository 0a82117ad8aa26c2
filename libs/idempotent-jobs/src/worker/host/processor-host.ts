import { Injectable } from '@nestjs/common';
import type { WorkerHost } from '@nestjs/bullmq';
import type { Job } from 'bullmq';
import { workerOfJob } from '../../bullmq/bundled-job.js';
import { isHandBack, QueueLimits } from '../../bullmq/hand-back.js';
import { type Provenance, provenanceOf } from '../../producer/envelope.js';
import { readBundle } from '../../producer/bundle.js';
import type { Ack } from '../acknowledge/acknowledge.js';
import type { Delivery } from '../intake/delivery.js';
import { BundleHost } from './bundle-host.js';
import { unprocessedReasonOf } from '../../bullmq/unprocessed.js';
import type { HandlerRun } from '../attempt/handler-run.js';
import { JobPipeline } from '../pipeline.js';
import { UsageError } from '../../operation/errors.js';
import { LibraryLog } from '../../events/library-log.js';
import { EnhancerChains, type ProcessMethod } from '../intake/enhancer-chain.js';
import type { RulesByPolicy, ProcessorRules } from '../rules/operation-rules.js';
import type { FallsBack, Reconciles } from '../attempt/current-operation.js';
import { runIds } from '../../operation/identity.js';

/** A processor of this application. */
export interface RegisteredProcessor {
  readonly rules: RulesByPolicy;
  /** Set for request-scoped processors: the provider's id. */
  readonly requestScopedId: string | undefined;
}

/** Finds the processor of a job that BullMQ delivers, and passes the job to the pipeline. */
@Injectable()
export class ProcessorHost {
  /** The rate limits by which handlers hand their jobs back. */
  readonly limits = new QueueLimits();
  readonly #processors = new Map<unknown, RegisteredProcessor>();
  readonly #delivered = new WeakSet<Job>();
  readonly #nextRunId = runIds();
  readonly #missed = new Set<string>();

  constructor(
    private readonly pipeline: JobPipeline,
    private readonly bundles: BundleHost,
    private readonly chains: EnhancerChains,
    private readonly log: LibraryLog,
  ) {}

  register(processorClass: unknown, processor: RegisteredProcessor): void {
    this.#processors.set(processorClass, processor);
  }

  /** Handles one delivery of BullMQ. Returns or throws what BullMQ understands. */
  handle(instance: WorkerHost, original: ProcessMethod, job: Job, token?: string): Promise<unknown> {
    const processor = this.#processors.get(instance.constructor);
    if (processor === undefined) {
      throw new UsageError(
        `${instance.constructor.name} received a job before the application was up. Start workers after app.init().`,
      );
    }
    this.#delivered.add(job);
    const deliveryOf = (own: Job): Delivery => this.#deliveryOf(processor, instance, original, own, token);
    const worker = workerOfJob(job);
    const carried = readBundle(job);
    if (carried === undefined)
      return this.bundles.single(worker, () => this.pipeline.handle(deliveryOf(job)));
    const deliver = (own: Job): Promise<Ack> => this.pipeline.deliver(deliveryOf(own));
    return this.bundles.handle({ job, token, carried, worker, limits: this.limits, deliver });
  }

  #deliveryOf(
    processor: RegisteredProcessor,
    instance: WorkerHost,
    original: ProcessMethod,
    job: Job,
    token: string | undefined,
  ): Delivery {
    const provenance = provenanceOf(job);
    const rules = this.#rulesOf(processor, job, provenance);
    // A handler that takes no signal does not cost one.
    const signalOf = ({ signal }: HandlerRun): AbortSignal => signal;
    const signalFor = original.length >= 3 ? signalOf : (): undefined => undefined;
    return {
      job,
      token,
      provenance,
      rules,
      runId: this.#nextRunId(),
      handler: (run) => original.call(instance, job, token, signalFor(run)),
      guarded: this.chains.isEmpty(instance.constructor, original)
        ? undefined
        : (run) => {
            const chain = this.chains.chainOf(instance, original, processor.requestScopedId, job);
            return chain(job, token, signalFor(run));
          },
      handsBack: (error) => isHandBack(error, job, this.limits),
      reconcile:
        rules.reconcile && ((operation) => (instance as WorkerHost & Reconciles).reconcile(operation)),
      fallback: rules.hasFallback
        ? (operation, reason) => (instance as WorkerHost & FallsBack).fallback(operation, reason)
        : undefined,
    };
  }

  /** Whether the processor was called for this job object, as opposed to BullMQ failing it by itself. */
  wasDelivered(job: Job): boolean {
    return this.#delivered.has(job);
  }

  /** Records a job that BullMQ failed without calling the processor. The operations of a bundle go on by themselves. */
  async writeUnprocessed(rules: ProcessorRules, job: Job, error: Error): Promise<void> {
    const bury = async (one: Job): Promise<void> => {
      const received = { job: one, provenance: provenanceOf(one), rules, runId: this.#nextRunId() };
      const reason = unprocessedReasonOf(error.message) ?? 'crash_loop';
      await this.pipeline.writeUnprocessed(received, reason, error);
    };
    const carried = readBundle(job);
    return carried === undefined ? bury(job) : this.bundles.scatter(job, carried, bury);
  }

  /**
   * The rules of a job. A retry policy that this application does not know is warned of once, and the processor's own
   * is used.
   */
  #rulesOf({ rules }: RegisteredProcessor, job: Job, provenance: Provenance): ProcessorRules {
    const { rules: found, unknownPolicy } = rules.of(job, provenance);
    const missed = unknownPolicy?.slice(0, MAX_NAME);
    if (missed !== undefined && this.#missed.size < MAX_MISSED && !this.#missed.has(missed)) {
      this.#missed.add(missed);
      this.log.warn(
        `Jobs of queue "${job.queueName}" ask for retry policy ${JSON.stringify(missed)}, which forRoot({ retryPolicies }) of this application does not have; they run as if they had not asked.`,
      );
    }
    return found;
  }
}

/** Producers can make up names without end. */
const MAX_MISSED = 100;
const MAX_NAME = 100;
