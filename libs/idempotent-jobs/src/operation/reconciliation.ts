/** A definite answer about an effect that was in doubt. */
export type EffectVerdict<Result = unknown> = Applied<Result> | NotApplied;

/** The answer of a service that was asked about an effect in doubt. */
export type Reconciliation<Result = unknown> = EffectVerdict<Result> | Unknown;

/** The effect happened; `result` is what the handler would have returned. */
export interface Applied<Result = unknown> {
  readonly kind: 'applied';
  readonly result: Result;
}

/** The effect did not happen. */
export interface NotApplied {
  readonly kind: 'not_applied';
}

/** The service cannot tell, or not yet. */
export interface Unknown {
  readonly kind: 'unknown';
}

function applied(): Applied<undefined>;
function applied<Result>(result: Result): Applied<Result>;
function applied(result?: unknown): Applied {
  return { kind: 'applied', result };
}

/**
 * What `reconcile()` returns, and what `OutcomeService.resolve()` takes:
 *
 * - `applied(result)`: the effect happened, and `result` is what the handler would have returned. It must be JSON, and is
 *   replayed from then on.
 * - `notApplied()`: the effect did not happen, and the operation may run again.
 * - `unknown()`: the service cannot tell, or not yet; the library asks it again later.
 */
export const Reconciliation = {
  applied,
  notApplied: (): NotApplied => ({ kind: 'not_applied' }),
  unknown: (): Unknown => ({ kind: 'unknown' }),
};
