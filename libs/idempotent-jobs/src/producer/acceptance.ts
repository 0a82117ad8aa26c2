import { Inject, Injectable } from '@nestjs/common';
import { JobEvents } from '../events/job-events.js';
import { LibraryLog } from '../events/library-log.js';
import { RESOLVED_OPTIONS } from '../option-checks/resolved-options.token.js';
import { TenantContext } from '../tenancy/tenant-context.js';
import type { Tracing } from '../tracing/tracing.js';
import { Due } from './due.js';
import { setTimeout } from 'node:timers/promises';
import type { OutgoingJob, QueuePort } from '../bullmq/queue-port.js';
import { type BundleRules, bundleOf } from './bundle.js';
import { OperationConflictError, OperationLockedError } from '../operation/errors.js';
import { identityKeyOf } from '../operation/identity.js';
import { Database } from '../ledger/postgres/database.js';
import { ROW_LOCK_MS, type RunStatement } from '../ledger/postgres/statement.js';
import {
  DEADLOCK_DETECTED,
  LOCK_NOT_AVAILABLE,
  SERIALIZATION_FAILURE,
  sqlStateOf,
} from '../ledger/postgres/no-connection.js';
import { Encryption, resultBinding } from '../ledger/encryption/encryption.js';
import { Signer } from './signer.js';
import { type CallerTransaction, inCallerTransaction } from './caller-transaction.js';
import type { EnqueueTransaction } from './enqueue.options.js';
import {
  type AcceptedOperation,
  OperationStore,
  type RequestedOperation,
  type WrittenOperation,
} from './operation.store.js';
import { outgoingJob } from './outgoing.js';

/** An accepted operation, with its result if it has completed. */
export type FoundOperation = AcceptedOperation & { readonly result: unknown };

/** The application's options that queues use. */
interface QueueOptions {
  readonly enqueue: { readonly maxPayloadBytes: number };
  readonly retryPolicies: ReadonlyMap<string, unknown>;
  readonly dispatch: { readonly redispatchAfterMs: number; readonly redispatchMaxMs: number };
  readonly traceContext: (() => unknown) | undefined;
  readonly tracing: Tracing | undefined;
}

/** What a queue needs of the application it belongs to. */
@Injectable()
export class QueueServices {
  constructor(
    readonly database: Database,
    readonly operations: OperationStore,
    readonly encryption: Encryption,
    readonly signer: Signer,
    readonly tenants: TenantContext,
    readonly events: JobEvents,
    readonly due: Due,
    readonly log: LibraryLog,
    @Inject(RESOLVED_OPTIONS) readonly options: QueueOptions,
  ) {}
}

/**
 * Writes operations of one queue to the ledger; if one conflicts, none is written. Once the transaction has committed,
 * they get to their queue by the dispatcher. Where BullMQ keeps the queue in the same database as the caller's
 * transaction, the jobs are added in that transaction instead.
 *
 * `requested` may be iterated more than once, and is not kept in memory: each request is made while it is written.
 */
export class Acceptance {
  #handsOverFrom = -Infinity;
  /** The last call under way for each key. */
  readonly #turns = new Map<string, Promise<unknown>>();

  constructor(
    private readonly port: QueuePort,
    private readonly services: QueueServices,
    private readonly bundle: BundleRules | undefined,
  ) {}

  /**
   * @throws OperationConflictError for the first request whose key belongs to another request; RecordUnreadableError for
   *   the first one that has completed with a result that cannot be read
   */
  async accept(requested: Iterable<RequestedOperation>, count: number): Promise<FoundOperation[]> {
    const { operations, database } = this.services;
    const write = async (run: RunStatement): Promise<FoundOperation[]> =>
      this.#found(await operations.accept(run, requested, { rowLockMs: ROW_LOCK_MS }));
    const accepted =
      count === 1
        ? await this.#inTurn(requested, () => retried(LOCKED, () => write(operations.onPool)))
        : await this.#unlocked(
            () =>
              retried(RIVALRY, () =>
                database.inTransaction((connection) => write(operations.on(connection))),
              ),
            { queue: this.port.name, count },
          );
    // The rows are committed: from here on, a crash changes only when they reach the queue, and by which process.
    await this.services.due.announce(this.port.name);
    return accepted;
  }

  /**
   * Calls with the same key take turns, so that one connection at most waits for a locked row. When that call has waited
   * in vain, those behind it fail with it.
   */
  async #inTurn<T>(requested: Iterable<RequestedOperation>, work: () => Promise<T>): Promise<T> {
    const [operation] = requested as Iterable<RequestedOperation> & [RequestedOperation];
    const key = identityKeyOf(operation);
    const before = this.#turns.get(key);
    const turn = (async (): Promise<T> => {
      if (before !== undefined) await endOf(before);
      const { tenantId, operationKey } = operation;
      return this.#unlocked(work, { tenantId, operationKey });
    })();
    this.#turns.set(key, turn);
    try {
      return await turn;
    } finally {
      if (this.#turns.get(key) === turn) this.#turns.delete(key);
    }
  }

  /** @throws OperationLockedError that names what another transaction holds */
  async #unlocked<T>(work: () => Promise<T>, what: Named | Counted): Promise<T> {
    try {
      return await work();
    } catch (error) {
      if (sqlStateOf(error) !== LOCK_NOT_AVAILABLE) throw error;
      throw new OperationLockedError(what, error);
    }
  }

  /**
   * @throws OperationConflictError, RecordUnreadableError as {@link accept}; UsageError for a transaction that cannot be
   *   joined
   */
  acceptWithin(
    transaction: EnqueueTransaction,
    requested: Iterable<RequestedOperation>,
  ): Promise<FoundOperation[]> {
    const { operations, database } = this.services;
    return inCallerTransaction(transaction, database, async (caller) => {
      const run = runIn(caller, database);
      if (await this.#mayHandOver(caller)) {
        try {
          return await this.#handOver(caller, run, requested);
        } catch (error) {
          if (!(error instanceof NotHandedOver)) throw error;
          this.#pause(error.cause);
          await caller.undo();
        }
      }
      const accepted = this.#found(await operations.accept(run, requested));
      await operations.announce(run, this.port.name);
      return accepted;
    });
  }

  async #handOver(
    caller: CallerTransaction,
    run: RunStatement,
    requested: Iterable<RequestedOperation>,
  ): Promise<FoundOperation[]> {
    const { operations, signer, options } = this.services;
    const redispatchAfterMs = Math.min(options.dispatch.redispatchAfterMs, options.dispatch.redispatchMaxMs);
    const put = async (added: readonly WrittenOperation[]): Promise<void> => {
      const jobs = new Map<string, OutgoingJob[]>();
      for (const operation of added) {
        const job = outgoingJob(operation, { signer, rowMs: operation.rowMs });
        const id = operation.bundleId ?? operation.jobId;
        const carried = jobs.get(id);
        if (carried === undefined) jobs.set(id, [job]);
        else carried.push(job);
      }
      try {
        await this.port.putWithin(
          caller.connection,
          [...jobs.values()].map((carried) =>
            carried.length > 1 ? bundleOf(carried) : (carried[0] as OutgoingJob),
          ),
        );
      } catch (error) {
        throw new NotHandedOver(error);
      }
    };
    const handover = { redispatchAfterMs, put, bundle: this.bundle, maxDataBytes: this.port.maxDataBytes };
    return this.#found(await operations.accept(run, requested, { handover }));
  }

  /** Called inside the transaction, so that an error rolls back all of it. */
  #found(accepted: AcceptedOperation[]): FoundOperation[] {
    return refuseConflicts(accepted).map((operation) => ({
      ...operation,
      result:
        operation.kind === 'duplicate'
          ? this.services.encryption.openText(operation.resultText, resultBinding(operation))
          : undefined,
    }));
  }

  async #mayHandOver({ databaseName }: CallerTransaction): Promise<boolean> {
    return performance.now() >= this.#handsOverFrom && (await this.port.isIn(databaseName));
  }

  /** Stops adding jobs in transactions for a while: the cause (most likely a missing privilege) does not pass at once. */
  #pause(error: unknown): void {
    this.#handsOverFrom = performance.now() + HANDOVER_PAUSE_MS;
    this.services.log.trouble(
      `Jobs of queue "${this.port.name}" could not be added in the caller's transaction; the dispatcher puts them there`,
      error,
    );
  }
}

const HANDOVER_PAUSE_MS = 60_000;

type Named = Pick<RequestedOperation, 'tenantId' | 'operationKey'>;

/** The operations of one queue that one call enqueues, as an error names them. */
interface Counted {
  readonly queue: string;
  readonly count: number;
}

/** Waits for the earlier call with the same key. @throws OperationLockedError if that call failed with it */
async function endOf(before: Promise<unknown>): Promise<void> {
  try {
    await before;
  } catch (error) {
    if (error instanceof OperationLockedError) throw error;
  }
}

/** BullMQ did not add the jobs in the caller's transaction. Errors of the ledger are not wrapped: they go to the caller. */
class NotHandedOver extends Error {
  constructor(cause: unknown) {
    super('not handed over', { cause });
  }
}

/** When a transaction is tried again, and for how long. */
interface Retries {
  readonly states: ReadonlySet<string>;
  readonly tries: number;
  /** The first pause, in ms. It doubles with each try. */
  readonly pauseMs: number;
}

/**
 * Retries for a second while another transaction is writing the row: five tries. It holds no connection between the
 * tries, so that others of this process can use it.
 */
const LOCKED: Retries = { states: new Set([LOCK_NOT_AVAILABLE]), tries: 5, pauseMs: 50 };

/**
 * Rows are written in the order of their keys, but only within one statement. Two transactions of several statements with
 * the same keys may wait for each other, and Postgres ends one of them; its retry finds the rows of the other. A
 * transaction of thousands of rows may also hold them for longer than the lock timeout.
 *
 * Each rival that wins is one less to meet; more than a handful at one time are no accident. The first pause is about the
 * time that a rival needs for some thousand rows, because a retry at once would block the rival that this transaction was
 * ended for.
 */
const RIVALRY: Retries = {
  states: new Set([DEADLOCK_DETECTED, SERIALIZATION_FAILURE, LOCK_NOT_AVAILABLE]),
  tries: 7,
  pauseMs: 200,
};

async function retried<T>({ states, tries, pauseMs }: Retries, work: () => Promise<T>): Promise<T> {
  for (let failures = 1; ; failures += 1) {
    try {
      return await work();
    } catch (error) {
      const state = sqlStateOf(error);
      if (failures === tries || state === undefined || !states.has(state)) throw error;
      await setTimeout(pauseMs * 2 ** (failures - 1) * (0.5 + Math.random()));
    }
  }
}

function runIn({ connection }: CallerTransaction, database: Database): RunStatement {
  return async (call) => {
    const { rows } = await connection.query({ text: database.textOf(call), values: call.values() });
    return rows;
  };
}

function refuseConflicts(accepted: AcceptedOperation[]): AcceptedOperation[] {
  const conflicting = accepted.find(({ kind }) => kind === 'conflict');
  if (conflicting !== undefined)
    throw new OperationConflictError(conflicting.tenantId, conflicting.operationKey);
  return accepted;
}
