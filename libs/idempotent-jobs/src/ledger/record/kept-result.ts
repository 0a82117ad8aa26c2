/**
 * Why a completed operation has no result although its handler returned one: it is larger than
 * `forRoot({ results: { maxBytes } })`; JSON or Postgres cannot express it; its processor has `storeResult: false`; its
 * processor's `redact` threw.
 */
export type ResultOmitted = 'too_large' | 'not_json' | 'not_stored' | 'redact_failed';

/** What is kept of what a handler returns. */
export interface ResultRules {
  /** False: nothing is kept, and nobody is given anything. */
  readonly isStored: boolean;
  /** What to keep in its place. */
  readonly redact: ((result: unknown) => unknown) | undefined;
  /** How large the JSON text may be in UTF-8, in bytes. */
  readonly maxBytes: number;
}

/** Every replay reads it, and so does whoever looks the operation up. */
export const DEFAULT_MAX_RESULT_BYTES = 1024 * 1024;

/** A result as it is recorded. */
export interface RecordedResult {
  /** Plain JSON text; undefined: none. */
  readonly text: string | undefined;
  /** Why there is none; undefined: it is there, or the handler returned nothing. */
  readonly omitted: ResultOmitted | undefined;
  /** Which dependency a fallback answered for, and why; undefined: none did. */
  readonly degraded?: string | undefined;
}
