/**
 * What a circuit breaker does with the next call:
 *
 * - `closed`: lets it through and counts it.
 * - `open`: rejects it; in `retryAfterMs` milliseconds it lets one through as a probe.
 * - `half_open`: lets one probe through at a time; `successes` of them have succeeded in a row.
 * - `forced_open`, `forced_closed`: the operator has decided.
 */
export type CircuitState =
  | { readonly kind: 'closed' }
  | { readonly kind: 'open'; readonly retryAfterMs: number }
  | { readonly kind: 'half_open'; readonly successes: number }
  | { readonly kind: 'forced_open' }
  | { readonly kind: 'forced_closed' };

/** The right to make one call. Only the first call of one of its methods has an effect. */
export interface Permit {
  /** The dependency answered. */
  succeed(): void;
  /** The dependency failed: a transient failure, a timeout, or one that leaves a doubt. */
  fail(): void;
  /** The call says nothing about the dependency: it was never made, was stopped from here, or was itself faulty. */
  ignore(): void;
}

/** The circuit breaker's answer to a call that asks. */
export type Admission =
  | { readonly kind: 'admitted'; readonly permit: Permit }
  /** `retryAfterMs`: when to try again, in milliseconds from now; spread, so that calls do not all come back at once. */
  | { readonly kind: 'open'; readonly retryAfterMs: number };
