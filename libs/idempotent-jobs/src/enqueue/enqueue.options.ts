import type { EntityManager } from 'typeorm';

/** How {@link IdempotentQueue.enqueue} enqueues one operation. */
export interface EnqueueOptions {
  /** Names the effect within the tenant, e.g. `charge:order-17:1`: the same key never has two outcomes. */
  readonly operationKey: string;
  /** Default: the tenant of the surrounding frame. Given inside a frame of another tenant, it is an error. */
  readonly tenantId?: string;
  /** The caller's transaction: the operation exists if and only if it commits. Only with durability `ledger`. */
  readonly transaction?: EntityManager;
  /**
   * - `ledger` (default): the operation is a row in Postgres before this returns, and reaches its queue from there,
   *   however often the queue is lost.
   * - `queue`: straight to BullMQ; fastest, and as durable as BullMQ's backend.
   */
  readonly durability?: 'ledger' | 'queue';
  /** Not to be run for that many milliseconds. Default 0. */
  readonly delayMs?: number;
  /** As BullMQ's: 0 (default) is first come, first served and goes before all others; then 1 before 2, up to 2,097,151. */
  readonly priority?: number;
  /** When the total time budget ends. Default: the processor's `timeBudgetMs`, counted from the first attempt. */
  readonly deadline?: Date;
}

/** BullMQ's highest priority number. */
export const MAX_PRIORITY = 2_097_151;
