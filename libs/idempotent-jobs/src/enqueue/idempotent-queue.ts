import type { QueuePort } from '../bullmq/queue-port.js';
import type { JobEvents } from '../observe/job-events.js';
import { UsageError } from '../operation/errors.js';
import type { OperationIdentity } from '../operation/identity.js';
import type { AnyJobs, JobMap, JobName, PayloadOf, ResultOf } from '../operation/job-map.js';
import type { OperationStatus } from '../operation/status.js';
import { Acceptance, type AcceptanceServices } from './acceptance.js';
import { type AskingRules, askOperation } from './ask.js';
import { chunksOf } from './chunks.js';
import type { EnqueueOptions, RequestOptions, WriteOptions } from './enqueue.options.js';
import type { AcceptedOperation, AskedOperation } from './operation.store.js';
import { outgoingJob } from './outgoing.js';

/** What an enqueued operation is known by, and where it stands. */
export interface EnqueuedOperation<Result = unknown> extends OperationIdentity {
  readonly jobId: string;
  /**
   * Whether the operation existed before; nothing was added then. Undefined with durability `queue`, where nobody
   * looks: the worker finds out.
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

/** What a queue needs of the application it belongs to. */
export interface QueueServices extends AcceptanceServices, AskingRules {
  readonly events: JobEvents;
}

/**
 * The way into an idempotent queue: an operation is asked for by the key of its effect, and asking again is harmless.
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
  ) {
    this.#acceptance = new Acceptance(port, services);
  }

  /**
   * Enqueues an operation, or finds it. Same key and same payload: the existing operation is returned, with its result
   * if it has completed. A dead or in-doubt operation stays what it is; see its dead letter.
   *
   * An error leaves nothing behind, and a transaction that was passed as it was.
   *
   * @throws OperationConflictError same key, other payload, job name or queue; nothing is enqueued
   * @throws TenantMissingError, TenantMismatchError, InvalidIdentityError, InvalidPayloadError, UsageError
   */
  async enqueue<N extends JobName<M>>(
    name: N,
    payload: PayloadOf<M, N>,
    options: EnqueueOptions,
  ): Promise<EnqueuedOperation<ResultOf<M, N>>> {
    const [enqueued] = await this.#write([this.ask(name, payload, options)], 1, options);
    return enqueued as EnqueuedOperation<ResultOf<M, N>>;
  }

  /**
   * Enqueues many operations in one transaction: all are accepted, or, if one conflicts or cannot be carried, none.
   * They are read while they are written, so leave them as they are until this returns.
   *
   * @throws as {@link enqueue}
   */
  async enqueueMany(
    requests: readonly OperationRequest<M>[],
    options: WriteOptions = {},
  ): Promise<EnqueuedOperation<ResultOf<M>>[]> {
    if (requests.length === 0) return [];
    const ask = ({ name, payload, ...rest }: OperationRequest<M>): AskedOperation =>
      this.ask(name, payload, rest);
    const asked: Iterable<AskedOperation> = {
      *[Symbol.iterator]() {
        for (const request of requests) yield ask(request);
      },
    };
    return this.#write(asked, requests.length, options);
  }

  /** Checks a request and gives it its identity. @internal */
  ask(name: string, payload: unknown, options: RequestOptions): AskedOperation {
    return askOperation(this.name, name, payload, options, this.services);
  }

  async #write(
    asked: Iterable<AskedOperation>,
    count: number,
    { transaction, durability }: WriteOptions,
  ): Promise<EnqueuedOperation[]> {
    if (durability === 'queue') {
      if (transaction !== undefined) {
        throw new UsageError(
          'durability "queue" cannot join a transaction: the job would be visible before COMMIT and stay after ROLLBACK. Use the default durability "ledger".',
        );
      }
      return this.#putDirectly([...asked]);
    }
    const accepted =
      transaction === undefined
        ? await this.#acceptance.accept(asked, count)
        : await this.#acceptance.acceptWithin(transaction, asked);
    return accepted.map((operation) => this.#accepted(operation));
  }

  async #putDirectly(asked: AskedOperation[]): Promise<EnqueuedOperation[]> {
    for (const chunk of chunksOf(asked)) {
      await this.port.put(
        chunk.map((operation) => outgoingJob({ ...operation, delayMs: operation.delayMs ?? 0 })),
      );
    }
    return asked.map(({ tenantId, operationKey, jobId }) => ({
      tenantId,
      operationKey,
      jobId,
      duplicate: undefined,
      status: 'pending',
      result: undefined,
    }));
  }

  #accepted(operation: AcceptedOperation): EnqueuedOperation {
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
      result: duplicate ? operation.result : undefined,
    };
  }
}
