import { messageOf } from '../operation/message-of.js';
import type { QueuePort } from '../bullmq/queue-port.js';
import type { JobEvents } from '../observe/job-events.js';
import { InvalidPayloadError, OperationConflictError, UsageError } from '../operation/errors.js';
import { canonicalRequest, fingerprintOf } from '../operation/fingerprint.js';
import { assertIdentity, jobIdOf, jobNameProblem, type OperationIdentity } from '../operation/identity.js';
import type { AnyJobs, JobMap, JobName, PayloadOf, ResultOf } from '../operation/job-map.js';
import { toJsonText } from '../operation/json.js';
import type { OperationStatus } from '../operation/status.js';
import type { Database } from '../postgres/database.js';
import { inTransaction } from '../postgres/transaction.js';
import type { Statement } from '../postgres/statement.js';
import type { TenantContext } from '../tenancy/tenant-context.js';
import { type EnqueueOptions, MAX_PRIORITY } from './enqueue.options.js';
import { outgoingJob } from './outgoing.js';
import type { AcceptedOperation, AskedOperation, OperationStore, RunStatement } from './operation.store.js';

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
  [N in JobName<M>]: { readonly name: N; readonly payload: PayloadOf<M, N> } & Omit<
    EnqueueOptions,
    'transaction' | 'durability'
  >;
}[JobName<M>];

/** What a queue needs of the application it belongs to. */
export interface QueueServices {
  readonly database: Database;
  readonly operations: OperationStore;
  readonly tenants: TenantContext;
  readonly events: JobEvents;
  readonly traceContext: (() => unknown) | undefined;
  /** Tells the dispatcher of this process that something is due; false if this process runs none. */
  readonly wakeDispatcher: () => boolean;
}

/**
 * The way into an idempotent queue: an operation is asked for by the key of its effect, and asking again is harmless.
 *
 * Inject it with `@InjectIdempotentQueue('charges')`.
 */
export class IdempotentQueue<M extends JobMap<M> = AnyJobs> {
  /** @internal Injected with `@InjectIdempotentQueue()`. */
  constructor(
    /** The queue's name. */
    readonly name: string,
    private readonly port: QueuePort,
    private readonly services: QueueServices,
  ) {}

  /**
   * Enqueues an operation, or finds it. Same key and same payload: the existing operation is returned, with its result
   * if it has completed. A dead or in-doubt operation stays what it is; see its dead letter.
   *
   * @throws OperationConflictError same key, other payload, job name or queue; nothing is enqueued
   * @throws TenantMissingError, TenantMismatchError, InvalidIdentityError, InvalidPayloadError, UsageError
   */
  async enqueue<N extends JobName<M>>(
    name: N,
    payload: PayloadOf<M, N>,
    options: EnqueueOptions,
  ): Promise<EnqueuedOperation<ResultOf<M, N>>> {
    const asked = this.ask(name, payload, options);
    if (options.durability === 'queue') {
      if (options.transaction !== undefined) {
        throw new UsageError(
          'durability "queue" cannot join a transaction: the job would be visible before COMMIT and stay after ROLLBACK. Use the default durability "ledger".',
        );
      }
      const [put] = await this.#putDirectly([asked]);
      return put as EnqueuedOperation<ResultOf<M, N>>;
    }
    const [accepted] = await this.#accept([asked], options.transaction);
    return accepted as EnqueuedOperation<ResultOf<M, N>>;
  }

  /**
   * Enqueues many operations in one transaction: all are accepted, or, if one conflicts, none.
   *
   * @throws as {@link enqueue}
   */
  async enqueueMany(
    requests: readonly OperationRequest<M>[],
    options: Pick<EnqueueOptions, 'transaction' | 'durability'> = {},
  ): Promise<EnqueuedOperation<ResultOf<M>>[]> {
    const asked = requests.map(({ name, payload, ...rest }) => this.ask(name, payload, rest));
    if (asked.length === 0) return [];
    if (options.durability === 'queue') {
      if (options.transaction !== undefined)
        throw new UsageError(
          'durability "queue" cannot join a transaction. Use the default durability "ledger".',
        );
      return this.#putDirectly(asked);
    }
    return this.#accept(asked, options.transaction);
  }

  /** Checks a request and gives it its identity. @internal */
  ask(
    name: string,
    payload: unknown,
    options: Omit<EnqueueOptions, 'transaction' | 'durability'>,
  ): AskedOperation {
    const tenantId = this.services.tenants.assert(options.tenantId);
    const identity = assertIdentity({ tenantId, operationKey: options.operationKey });
    const nameProblem = jobNameProblem(name);
    if (nameProblem !== undefined) throw new UsageError(nameProblem);
    assertSchedule(options);
    const text = toJsonText(`payload of job "${name}"`, payload);
    return {
      ...identity,
      queue: this.name,
      jobName: name,
      jobId: jobIdOf(identity),
      // Parsed back, so that what is hashed is what the worker will read: no Dates, no undefined, no class instances.
      fingerprint: fingerprint(identity, name, JSON.parse(text)),
      payload: text,
      priority: options.priority,
      delayMs: options.delayMs,
      deadline: options.deadline,
      trace: traceText(this.services.traceContext),
    };
  }

  async #accept(
    asked: AskedOperation[],
    transaction: EnqueueOptions['transaction'],
  ): Promise<EnqueuedOperation[]> {
    const { operations } = this.services;
    if (transaction !== undefined) {
      if (transaction.queryRunner?.isTransactionActive !== true) {
        throw new UsageError(
          'enqueue() was given an EntityManager without an open transaction. Pass the manager that dataSource.transaction(async (manager) => …) hands you.',
        );
      }
      const accepted = await this.#acceptWithin(transaction, asked);
      return this.#results(asked, accepted);
    }
    const accepted =
      asked.length === 1
        ? refuseConflicts(asked, await operations.accept(operations.onPool, asked))
        : await inTransaction(this.services.database, async (connection) =>
            refuseConflicts(asked, await operations.accept(operations.on(connection), asked)),
          );
    // Rows are committed: from here on a crash changes only who puts them on the queue, and when.
    if (!this.services.wakeDispatcher()) await operations.announce(operations.onPool, this.name);
    return this.#results(asked, accepted);
  }

  /** In the caller's transaction a conflict must leave nothing, also when the caller catches it and goes on. */
  async #acceptWithin(
    transaction: NonNullable<EnqueueOptions['transaction']>,
    asked: AskedOperation[],
  ): Promise<AcceptedOperation[]> {
    const run: RunStatement = <Row>(statement: Statement, values: unknown[]) =>
      transaction.query<Row[]>(this.services.database.textOf(statement), values);
    if (asked.length === 1) {
      const accepted = refuseConflicts(asked, await this.services.operations.accept(run, asked));
      await this.services.operations.announce(run, this.name);
      return accepted;
    }
    await transaction.query('SAVEPOINT idempotent_jobs_enqueue');
    try {
      const accepted = refuseConflicts(asked, await this.services.operations.accept(run, asked));
      await this.services.operations.announce(run, this.name);
      await transaction.query('RELEASE SAVEPOINT idempotent_jobs_enqueue');
      return accepted;
    } catch (error) {
      await transaction.query('ROLLBACK TO SAVEPOINT idempotent_jobs_enqueue');
      throw error;
    }
  }

  async #putDirectly(asked: AskedOperation[]): Promise<EnqueuedOperation[]> {
    await this.port.put(
      asked.map((operation) => outgoingJob({ ...operation, delayMs: operation.delayMs ?? 0 })),
    );
    return asked.map(({ tenantId, operationKey, jobId }) => ({
      tenantId,
      operationKey,
      jobId,
      duplicate: undefined,
      status: 'pending',
      result: undefined,
    }));
  }

  #results(asked: AskedOperation[], accepted: AcceptedOperation[]): EnqueuedOperation[] {
    return asked.map(({ tenantId, operationKey, jobId, jobName }, index) => {
      const answer = accepted[index] as AcceptedOperation;
      const duplicate = answer.kind === 'duplicate';
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
        status: answer.kind === 'duplicate' ? answer.status : 'pending',
        result: answer.kind === 'duplicate' ? answer.result : undefined,
      };
    });
  }
}

/** @throws OperationConflictError for the first request whose key belongs to another one */
function refuseConflicts(
  asked: readonly AskedOperation[],
  accepted: AcceptedOperation[],
): AcceptedOperation[] {
  const index = accepted.findIndex((answer) => answer.kind === 'conflict');
  const conflicting = asked[index];
  if (conflicting !== undefined)
    throw new OperationConflictError(conflicting.tenantId, conflicting.operationKey);
  return accepted;
}

function assertSchedule({
  delayMs,
  priority,
  deadline,
}: Omit<EnqueueOptions, 'transaction' | 'durability'>): void {
  if (delayMs !== undefined && !(Number.isFinite(delayMs) && delayMs >= 0)) {
    throw new UsageError(`delayMs must be a number of milliseconds, 0 or more, but is ${delayMs}.`);
  }
  if (priority !== undefined && !(Number.isInteger(priority) && priority >= 0 && priority <= MAX_PRIORITY)) {
    throw new UsageError(`priority must be a whole number from 0 to ${MAX_PRIORITY}, but is ${priority}.`);
  }
  if (deadline !== undefined && Number.isNaN(deadline.getTime())) {
    throw new UsageError('deadline must be a valid Date.');
  }
}

function fingerprint(identity: OperationIdentity, name: string, payload: unknown): string {
  try {
    return fingerprintOf(canonicalRequest(identity, name, payload));
  } catch (cause) {
    throw new InvalidPayloadError(
      `The payload of job "${name}" cannot be fingerprinted: ${messageOf(cause)}`,
      [],
      cause,
    );
  }
}

function traceText(traceContext: (() => unknown) | undefined): string | undefined {
  const trace = traceContext?.();
  return trace === undefined ? undefined : JSON.stringify(trace);
}
