import { randomBytes } from 'node:crypto';
import type { JobsOptions } from 'bullmq';
import type { QueuePort } from '../bullmq/queue-port.js';
import { InvalidPayloadError, OperationConflictError, UsageError } from '../operation/errors.js';
import { assertIdentity, type OperationIdentity } from '../operation/identity.js';
import type { AnyJobs, JobMap, JobName, PayloadOf, ResultOf } from '../operation/job.js';
import type { OperationStatus } from '../operation/status.js';
import { Acceptance, type FoundOperation, type QueueServices } from './acceptance.js';
import { identityAttributes, queueAttributes } from '../tracing/attributes.js';
import type { SpanAttributes } from '../tracing/tracing.js';
import { requestOperation } from './request.js';
import type { BundleRules } from './bundle.js';
import { chunksOf } from './chunks.js';
import type {
  EnqueueOptions,
  FlowNode,
  FlowNodeOptions,
  RequestOptions,
  WriteOptions,
} from './enqueue.options.js';
import type { RequestedOperation } from './operation.store.js';
import { outgoingJob, scheduleEnvelope } from './outgoing.js';
import {
  assertSchedule,
  iterationTimeOf,
  type Schedule,
  type ScheduleOptions,
  schedulerIdOf,
} from './schedule.js';

/** The identity of an enqueued operation, and where it stands. */
export interface EnqueuedOperation<Result = unknown> extends OperationIdentity {
  readonly jobId: string;
  /**
   * Whether the operation existed before; then nothing was added. Undefined with durability `queue`, which does not look
   * into the ledger: the worker finds out.
   */
  readonly duplicate: boolean | undefined;
  readonly status: OperationStatus;
  /** The recorded result, if the operation has completed already. */
  readonly result: Result | undefined;
}

/** One element of {@link IdempotentQueue.enqueueMany}. */
export type OperationRequest<M extends JobMap<M>> = {
  [N in JobName<M>]: { readonly name: N; readonly payload: PayloadOf<M, N> } & RequestOptions;
}[JobName<M>];

/**
 * The producer's side of an idempotent queue. An operation is requested under the key of its effect, and requesting it
 * again is harmless.
 *
 * Inject it with `@InjectIdempotentQueue('charges')`.
 */
export class IdempotentQueue<M extends JobMap<M> = AnyJobs> {
  readonly #acceptance: Acceptance;

  /** @internal Injected with `@InjectIdempotentQueue()`. */
  constructor(
    /** The queue's name. */
    readonly name: string,
    private readonly port: QueuePort,
    private readonly services: QueueServices,
    bundle?: BundleRules,
  ) {
    this.#acceptance = new Acceptance(port, services, bundle);
  }

  /**
   * Enqueues an operation, or finds it. For the same key and the same payload it returns the existing operation, with its
   * result if it has completed. A dead or in-doubt operation stays as it is; see its dead letter.
   *
   * When it throws, nothing was enqueued, and a transaction that was passed is as it was before.
   *
   * @throws OperationConflictError when the key belongs to another payload, job name or queue
   * @throws RecordUnreadableError when the operation has completed and its result cannot be decrypted here
   * @throws TenantMissingError, TenantMismatchError, InvalidIdentityError, InvalidPayloadError, UsageError
   */
  async enqueue<N extends JobName<M>>(
    name: N,
    payload: PayloadOf<M, N>,
    options: EnqueueOptions,
  ): Promise<EnqueuedOperation<ResultOf<M, N>>> {
    return this.#traced({}, async (tell) => {
      const requested = this.ask(name, payload, options);
      tell({ ...identityAttributes(requested), 'idempotent_jobs.job_name': name });
      const [enqueued] = await this.#write([requested], 1, options);
      tell({ 'messaging.message.id': enqueued?.jobId, 'idempotent_jobs.duplicate': enqueued?.duplicate });
      return enqueued as EnqueuedOperation<ResultOf<M, N>>;
    });
  }

  /**
   * Enqueues many operations in one transaction. All are accepted; if one conflicts or is invalid, none is. The requests
   * are read while they are written, so do not change them until this returns.
   *
   * More than a thousand requests take several statements. Two such calls with the same keys in another order may then
   * wait for each other until Postgres ends one of them (SQLSTATE 40P01). The library repeats that in its own transaction;
   * in yours (`transaction`) you repeat it. Requests sorted by tenant and key never deadlock like that.
   *
   * @throws as {@link enqueue}
   */
  async enqueueMany(
    requests: readonly OperationRequest<M>[],
    options: WriteOptions = {},
  ): Promise<EnqueuedOperation<ResultOf<M>>[]> {
    if (requests.length === 0) return [];
    const ask = ({ name, payload, ...rest }: OperationRequest<M>): RequestedOperation =>
      this.ask(name, payload, rest);
    const requested: Iterable<RequestedOperation> = {
      *[Symbol.iterator]() {
        for (const request of requests) yield ask(request);
      },
    };
    return this.#traced({ 'messaging.batch.message_count': requests.length }, () =>
      this.#write(requested, requests.length, options),
    );
  }

  /**
   * Makes a schedule, or replaces the one with the same tenant and key. Each iteration is an operation of its own, with
   * the key `<operationKey>:<time it was due>`, e.g. `report:2026-01-31T06:00:00.000Z`, and runs once however often it is
   * delivered.
   *
   * The schedule lives in BullMQ and is lost with its backend, so call this at every start. An iteration enters the ledger
   * with its first attempt. An iteration that is already due when the schedule is replaced runs as it was made.
   *
   * @throws TenantMissingError, TenantMismatchError, InvalidIdentityError, InvalidPayloadError, UsageError
   */
  async schedule<N extends JobName<M>>(
    name: N,
    payload: PayloadOf<M, N>,
    options: ScheduleOptions,
  ): Promise<Schedule> {
    const { operationKey, tenantId, priority, retryPolicy, ...repeat } = options;
    const requested = this.ask(name, payload, { operationKey, tenantId, priority, retryPolicy });
    assertSchedule(requested, repeat);
    const schedulerId = schedulerIdOf(requested);
    const job = await this.port.schedule(schedulerId, repeat, {
      name,
      data: scheduleEnvelope(requested, this.services.signer),
      priority,
      isUntraced: this.services.options.tracing !== undefined,
    });
    const nextAt = iterationTimeOf(job?.id, schedulerId);
    return { tenantId: requested.tenantId, operationKey, schedulerId, nextAt };
  }

  /**
   * Ends a schedule. Iterations that are already due still run. Returns false when there was no such schedule.
   *
   * @throws TenantMissingError, TenantMismatchError, InvalidIdentityError
   */
  async unschedule(options: Pick<ScheduleOptions, 'operationKey' | 'tenantId'>): Promise<boolean> {
    const tenantId = this.services.tenants.assert(options.tenantId);
    return this.port.unschedule(
      schedulerIdOf(assertIdentity({ tenantId, operationKey: options.operationKey })),
    );
  }

  /**
   * Makes an operation a node of a BullMQ flow, to hand to a FlowProducer. The flow lives in BullMQ and is as durable as
   * its backend: the ledger has no row before a node's first attempt.
   *
   * One operation may be a child of any number of parents, even of flows that are added while it runs or after it has
   * completed. Each place in a tree is a job of its own, the operation runs once, and every parent gets its result.
   *
   * @throws TenantMissingError, TenantMismatchError, InvalidIdentityError, InvalidPayloadError, UsageError
   */
  flowJob<N extends JobName<M>>(name: N, payload: PayloadOf<M, N>, options: FlowNodeOptions): FlowNode {
    if ('transaction' in options || 'durability' in options || 'parent' in options || 'repeat' in options) {
      throw new UsageError(
        'flowJob() takes no transaction, durability, parent or repeat: a flow is added by BullMQ alone, and its tree names the parents.',
      );
    }
    const { operationKey, tenantId, delayMs, priority, deadline, retryPolicy, ...onFailure } = options;
    const requested = this.ask(name, payload, {
      operationKey,
      tenantId,
      delayMs,
      priority,
      deadline,
      retryPolicy,
    });
    const node = this.port.nodeOf(outgoingJob(requested, this.services));
    return { ...node, opts: withJobIdPerUse({ ...node.opts, ...onFailure }, requested.jobId) };
  }

  /** Checks a request and gives it its identity. @internal */
  ask(name: string, payload: unknown, options: RequestOptions): RequestedOperation {
    const requested = requestOperation(this.name, name, payload, options, this.services);
    this.#assertFits(requested);
    return requested;
  }

  /** Rejects here what BullMQ would not take: once in the ledger, it would wait for its queue for ever. */
  #assertFits(requested: RequestedOperation): void {
    const { maxDataBytes } = this.port;
    if (maxDataBytes === undefined) return;
    const { data } = outgoingJob(requested, { signer: this.services.signer, rowMs: 0 });
    const bytes = Buffer.byteLength(JSON.stringify(data));
    if (bytes <= maxDataBytes) return;
    throw new InvalidPayloadError(
      `Job "${requested.jobName}" has ${bytes} bytes with its operation; queue "${this.name}" takes at most ${maxDataBytes} (defaultJobOptions.sizeLimit). Store the data elsewhere and enqueue a reference to it, or raise sizeLimit.`,
    );
  }

  /** Runs `work` in a span; the enqueued operations carry that span on. */
  async #traced<T>(
    attributes: SpanAttributes,
    work: (tell: (more: SpanAttributes) => void) => Promise<T>,
  ): Promise<T> {
    const { tracing } = this.services.options;
    if (tracing === undefined) return work(() => undefined);
    return tracing.span(
      {
        name: `enqueue ${this.name}`,
        kind: 'producer',
        attributes: { ...queueAttributes(this.name, 'send', 'enqueue'), ...attributes },
      },
      (span) => work((more) => span.set(more)),
    );
  }

  async #write(
    requested: Iterable<RequestedOperation>,
    count: number,
    { transaction, durability }: WriteOptions,
  ): Promise<EnqueuedOperation[]> {
    if (durability === 'queue') {
      if (transaction !== undefined) {
        throw new UsageError(
          'durability "queue" cannot join a transaction: the job would be visible before COMMIT and stay after ROLLBACK. Use the default durability "ledger".',
        );
      }
      return this.#putDirectly([...requested]);
    }
    const accepting =
      transaction === undefined
        ? this.#acceptance.accept(requested, count)
        : this.#acceptance.acceptWithin(transaction, requested);
    const accepted = await accepting.catch((error: unknown) => this.#refused(requested, error));
    return accepted.map((operation) => this.#accepted(operation));
  }

  /** Reports a key that was used for two requests. That is a bug of the producer, which no other process would see. */
  #refused(requested: Iterable<RequestedOperation>, error: unknown): never {
    if (error instanceof OperationConflictError) {
      const { tenantId, operationKey } = error.data as unknown as OperationIdentity;
      const refused = [...requested].find((one) => one.operationKey === operationKey);
      this.services.events.emit({
        kind: 'conflict_refused',
        queue: this.name,
        jobName: refused?.jobName ?? '',
        jobId: '',
        tenantId,
        operationKey,
      });
    }
    throw error;
  }

  async #putDirectly(requested: RequestedOperation[]): Promise<EnqueuedOperation[]> {
    for (const chunk of chunksOf(requested)) {
      await this.port.put(chunk.map((operation) => outgoingJob(operation, this.services)));
    }
    return requested.map(({ tenantId, operationKey, jobId }) => ({
      tenantId,
      operationKey,
      jobId,
      duplicate: undefined,
      status: 'pending',
      result: undefined,
    }));
  }

  #accepted(operation: FoundOperation): EnqueuedOperation {
    const { tenantId, operationKey, jobId, jobName } = operation;
    const duplicate = operation.kind === 'duplicate';
    this.services.events.emit({
      kind: 'enqueued',
      queue: this.name,
      jobName,
      jobId,
      tenantId,
      operationKey,
      isDuplicate: duplicate,
    });
    return {
      tenantId,
      operationKey,
      jobId,
      duplicate,
      status: duplicate ? operation.status : 'pending',
      result: operation.result,
    };
  }
}

/**
 * A node's job options, with an id that begins with the operation's and is made anew on each read. BullMQ attaches no
 * second parent to an existing job, so each place in a tree gets a job of its own. All of these jobs carry one operation:
 * it runs once, and its result is replayed into every parent.
 */
function withJobIdPerUse(opts: JobsOptions, jobId: string): JobsOptions {
  return {
    ...opts,
    get jobId() {
      return `${jobId}-${randomBytes(9).toString('base64url')}`;
    },
  };
}
