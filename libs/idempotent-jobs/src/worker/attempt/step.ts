import type { Reconciliation } from '../../operation/effect.js';
import type { CurrentOperation } from './current-operation.js';

/** What a step does; `operation` is the step's own: its key, token, signal, follow-ups. */
export type StepRun<T> = (operation: CurrentOperation) => Promise<T> | T;

/** A step whose effect can be looked up. */
export interface ReconciledStep<T> {
  readonly run: StepRun<T>;
  /** Like a processor's: finds out whether the effect of the step's last attempt happened. */
  readonly reconcile: (operation: CurrentOperation) => Promise<Reconciliation> | Reconciliation;
}
