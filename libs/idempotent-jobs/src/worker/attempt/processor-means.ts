import type { RejectionCause } from '../../operation/reasons.js';
import type { CurrentOperation } from './current-operation.js';
import type { Reconciliation } from '../../operation/reconciliation.js';

/**
 * A processor that can find out whether the effect of an attempt happened: for effect `reconciled`, which needs it, and for
 * `keyed`, which may have it.
 *
 * ```ts
 * class ChargeProcessor extends WorkerHost implements Reconciles<Receipt> { … }
 * ```
 */
export interface Reconciles<Result = unknown> {
  /**
   * Asks the service. Called under a lease, a timeout and a plan (`IdempotentProcessorOptions.reconcile`); it costs no
   * attempt. What it throws counts as `unknown()`.
   */
  reconcile(operation: CurrentOperation): Promise<Reconciliation<Result>> | Reconciliation<Result>;
}

/** A processor that stands in for its dependency while that lets nothing through. */
export interface FallsBack<Result = unknown> {
  /** Called in place of `process()`; what it returns completes the operation, which is marked as degraded. */
  fallback(operation: CurrentOperation, reason: RejectionCause): Promise<Result> | Result;
}
