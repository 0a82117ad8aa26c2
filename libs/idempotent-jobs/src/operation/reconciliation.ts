/** What somebody who knows says about an effect that was in doubt. */
export type EffectVerdict<Result = unknown> = Applied<Result> | NotApplied;

/** What a service answers that is asked about an effect in doubt. */
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

/** The effect happened. The result is recorded and replayed from then on; it must be JSON. */
export function applied(): Applied<undefined>;
export function applied<Result>(result: Result): Applied<Result>;
export function applied(result?: unknown): Applied {
  return { kind: 'applied', result };
}

/** The effect did not happen: the operation may be run again. */
export function notApplied(): NotApplied {
  return { kind: 'not_applied' };
}

/** The service cannot tell, or not yet: it is asked again later. */
export function unknown(): Unknown {
  return { kind: 'unknown' };
}
