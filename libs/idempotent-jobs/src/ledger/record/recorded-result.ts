/**
 * Why a completed operation has no result although its handler returned one: it is larger than
 * `forRoot({ results: { maxBytes } })`; JSON or Postgres cannot express it; its processor has `storeResult: false`; or its
 * processor's `redact` threw.
 */
export type ResultOmitted = 'too_large' | 'not_json' | 'not_stored' | 'redact_failed';

/** What is stored of a handler's result. */
export interface ResultRules {
  /** When false, no result is stored or returned to a caller. */
  readonly isStored: boolean;
  /** Returns what to store in place of the result. */
  readonly redact: ((result: unknown) => unknown) | undefined;
  /** How large the JSON text may be in UTF-8, in bytes. */
  readonly maxBytes: number;
}

/** Every replay and every lookup of the operation reads the result. */
export const DEFAULT_MAX_RESULT_BYTES = 1024 * 1024;

/** A result to be recorded. */
export interface RecordedResult {
  /** Plain JSON text. Undefined when there is no result. */
  readonly text: string | undefined;
  /** Why there is no result. Undefined when there is one, or the handler returned nothing. */
  readonly omitted: ResultOmitted | undefined;
  /** Which dependency a fallback answered for, and why. Undefined when none did. */
  readonly degraded?: string | undefined;
}
