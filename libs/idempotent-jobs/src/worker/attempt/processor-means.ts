import type { RejectionCause } from '../../operation/reasons.js';
import type { CurrentOperation } from './current-operation.js';
import type { Reconciliation } from '../../operation/effect.js';

/**
 * A processor that can find out whether the effect of an attempt happened. Effect `reconciled` needs it, `keyed` may
 * have it.
 *
 * ```ts
 * class ChargeProcessor extends WorkerHost implements Reconciles<Receipt> { … }
 * ```
 */
export interface Reconciles<Result = unknown> {
  /**
   * Asks the service whether the effect happened. Called under a lease and a timeout, on a schedule of questions
   * (`IdempotentProcessorOptions.reconcile`); costs no attempt. An error that it throws counts as `unknown()`.
   */
  reconcile(operation: CurrentOperation): Promise<Reconciliation<Result>> | Reconciliation<Result>;
}

/** A processor with a fallback for its dependency. */
export interface FallsBack<Result = unknown> {
  /**
   * Called in place of `process()` while the dependency lets nothing through. Its result completes the operation, which
   * is marked as degraded.
   */
  fallback(operation: CurrentOperation, reason: RejectionCause): Promise<Result> | Result;
}
