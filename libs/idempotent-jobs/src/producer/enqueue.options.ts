import type { JobsOptions } from 'bullmq';
import type { EntityManager, QueryRunner } from 'typeorm';

/** What identifies one operation and decides how it runs. */
export interface RequestOptions {
  /** Names the effect within the tenant, e.g. `charge:order-17:1`: the same key never has two outcomes. */
  readonly operationKey: string;
  /** Default: the tenant of the surrounding frame. Given inside a frame of another tenant, it is an error. */
  readonly tenantId?: string;
  /** Delays the operation by that many milliseconds, at most ten years. Default 0. */
  readonly delayMs?: number;
  /**
   * BullMQ's priority: 0 (default) is first come, first served, and precedes all others; then 1 before 2, up to 2,097,151.
   */
  readonly priority?: number;
  /** When the total time budget ends. Default: the processor's `timeBudgetMs`, counted from the first attempt. */
  readonly deadline?: Date;
  /**
   * The name of one of `forRoot({ retryPolicies })`, in place of that of the job name or the processor. The worker looks
   * it up, too; a worker that does not know the name runs the operation as if none had been given.
   */
  readonly retryPolicy?: string;
}

/** How operations are written. */
export interface WriteOptions {
  /**
   * The caller's transaction: the operation exists if and only if it commits. Only with durability `ledger`.
   *
   * Pass a TypeORM EntityManager or QueryRunner, or a connection of `pg`, with a transaction open on the ledger's
   * database. Await the call before the next statement of the transaction, because it works behind a savepoint.
   */
  readonly transaction?: EnqueueTransaction;
  /**
   * - `ledger` (default): the operation is a row in Postgres before this returns, and reaches its queue from there,
   *   however often the queue is lost.
   * - `queue`: the job goes straight to BullMQ; fastest, but only as durable as BullMQ's backend.
   */
  readonly durability?: 'ledger' | 'queue';
}

/** How {@link IdempotentQueue.enqueue} enqueues one operation. */
export interface EnqueueOptions extends RequestOptions, WriteOptions {}

/** A transaction that operations are enqueued in. */
export type EnqueueTransaction = EntityManager | QueryRunner | TransactionClient;

/** The methods that the library needs of pg's Client and PoolClient. A pg Pool has them too, but no transaction. */
export interface TransactionClient {
  query(query: {
    text: string;
    values: unknown[];
    types?: object;
  }): Promise<{ rows: any[]; rowCount: number | null }>;
}

/** BullMQ's highest priority number. */
export const MAX_PRIORITY = 2_097_151;

/**
 * How an operation takes part in a flow. One of BullMQ's four options, or none, decides what its death does to the parent.
 */
export type FlowNodeOptions = RequestOptions &
  Pick<
    JobsOptions,
    | 'failParentOnFailure'
    | 'continueParentOnFailure'
    | 'ignoreDependencyOnFailure'
    | 'removeDependencyOnFailure'
  >;

/** An operation as a node of a flow. Pass it to BullMQ's FlowProducer, with `children` if it has any. */
export interface FlowNode {
  readonly name: string;
  readonly queueName: string;
  readonly prefix?: string;
  readonly data: unknown;
  readonly opts: Omit<JobsOptions, 'parent' | 'repeat' | 'deduplication'>;
}
