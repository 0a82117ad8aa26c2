import type { Effect } from '../operation/effect.js';
import type { ReconcileOptions } from '../reconcile/reconcile.options.js';
import type { Reconciliation } from '../reconcile/verdict.js';
import type { CurrentOperation } from './current-operation.js';

/** What a step does; `operation` is the step's own: its key, token, signal, follow-ups. */
export type StepRun<T> = (operation: CurrentOperation) => Promise<T> | T;

/** A step whose effect can be looked up. */
export interface ReconciledStep<T> {
  readonly run: StepRun<T>;
  /** As a processor's: finds out whether the effect of the step's last attempt happened. */
  readonly reconcile: (operation: CurrentOperation) => Promise<Reconciliation> | Reconciliation;
}

/** How a step is run. */
export interface StepOptions {
  /** What kind of side effect the step has. Default `unrepeatable`; with a `reconcile`, `reconciled`. */
  readonly effect?: Effect;
  /** How long one try may take, in ms. Default: the processor's `timeoutMs`. */
  readonly timeoutMs?: number;
  /** For `keyed`: how long the service remembers a key, in ms from the first try. Default 24 h. */
  readonly keyRetentionMs?: number;
  /** For steps with a `reconcile`: when and how the service is asked. */
  readonly reconcile?: ReconcileOptions;
}
