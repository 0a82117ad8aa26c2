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
