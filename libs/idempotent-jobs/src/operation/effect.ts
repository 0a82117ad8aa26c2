/**
 * What kind of side effect a handler has. It decides what may be done when it is unknown whether the effect happened.
 *
 * - `natural`: repeating it changes nothing (set a status, read, recompute).
 * - `transactional`: it writes only through the transaction that the library opens; outcome and writes commit together.
 * - `keyed`: it calls a service that deduplicates by the idempotency key it is handed.
 * - `reconciled`: it calls a service that can be asked afterwards whether the effect happened; the processor's
 *   `reconcile()` asks it. It runs again only after "it did not happen".
 * - `unrepeatable` (the default): none of these is known. It runs at most once; if its end is unknown, the operation is in
 *   doubt until a person says what happened.
 */
export type Effect = 'natural' | 'transactional' | 'keyed' | 'reconciled' | 'unrepeatable';

export const EFFECTS: readonly Effect[] = ['natural', 'transactional', 'keyed', 'reconciled', 'unrepeatable'];

/** Services that deduplicate by key commonly remember keys for a day (Stripe: at least 24 hours). */
export const DEFAULT_KEY_RETENTION_MS = 24 * 60 * 60 * 1000;

/**
 * For how long after an operation's first attempt another attempt is safe, although an earlier one may have had its
 * effect, in ms. Null means forever, and 0 means never.
 */
export function repeatableForMs(effect: Effect, keyRetentionMs: number): number | null {
  switch (effect) {
    case 'natural':
    case 'transactional':
      return null;
    case 'keyed':
      return keyRetentionMs;
    case 'reconciled':
    case 'unrepeatable':
      return 0;
    default:
      return effect satisfies never;
  }
}

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
