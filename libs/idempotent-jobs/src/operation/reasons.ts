/*
 * The closed lists of words for why something happened. They are stored in the ledger, emitted in events and counted in
 * metrics.
 */

/**
 * Why a delivery was given up. A new reason needs:
 *
 * - always: a place in the CHECK of `dead_letters` (`ledger/postgres/schema.ts`; once that is released, a step in
 *   `migrations.ts`) and in `test/ops/pinned-metrics.ts`, and a row in docs/dead-letters.md;
 * - if it says which limit was reached: `decisionOf()` in `worker/rules/decide.ts`, `retryExhausted` in
 *   `observe/metrics/catalogue.ts`, and its row in docs/observability.md;
 * - if its operation must not run again as it is: `dead-letters/judge-letter.ts`, and `REDRIVABLE` in
 *   `dead-letters/bulk-redrive.store.ts`;
 * - if the letter does not end the operation that has its key: also `lock.ts` and `letter.queries.ts` in `dead-letters/`,
 *   and both indexes `dead_letters_one_open_per_…` of the schema;
 * - if a person must be told: the alert rules in `ops/`.
 */
export const DEAD_LETTER_REASONS = [
  'permanent_error',
  'retries_exhausted',
  'time_budget_exceeded',
  'deferred_too_long',
  'crash_loop',
  'payload_invalid',
  'identity_missing',
  'tenant_mismatch',
  'idempotency_conflict',
  'in_doubt',
  'expired',
  'manual',
] as const;

/** See {@link DEAD_LETTER_REASONS}. */
export type DeadLetterReason = (typeof DEAD_LETTER_REASONS)[number];

/** How a dead letter was closed. `completed` means that its operation had completed by the time it was redriven. */
export type DeadLetterResolution = 'redriven' | 'discarded' | 'applied' | 'not_applied' | 'completed';

/** Why a message on a dead-letter queue was dropped: it names no letter, an unknown one, or one of another queue. */
export type DropReason = 'malformed' | 'unknown' | 'elsewhere';

/**
 * What a failure says about the side effect:
 *
 * - `transient`: it did not happen (refused, DNS, throttled, serialization failure). Repeating is safe and may help.
 * - `in_doubt`: the call was on its way, and no answer came (timeout, reset, 500, 502, 504, lost lease).
 * - `permanent`: it did not happen and never will (validation, other 4xx, constraint violations).
 * - `programming`: a bug (TypeError and its kin); says nothing about the effect, and repeating will not help.
 * - `unknown`: says nothing at all.
 */
export type FailureKind = (typeof FAILURE_KINDS)[number];

/** Every kind there is. */
export const FAILURE_KINDS = ['transient', 'in_doubt', 'permanent', 'programming', 'unknown'] as const;

/**
 * Why an operation is tried again, given up, or left in doubt; recorded in the history of its attempts.
 *
 * - `backoff`, `retry_after`: tried again after the policy's wait, or after the service's own.
 * - `callers_turn`: a step or a call, whose caller decides.
 * - `not_retryable`: trying again will not help.
 * - `attempts_spent`, `time_budget_spent`: the policy allows no other attempt, or none in time.
 * - `crash_loop`: its workers died while they ran it.
 * - `may_have_happened`: the effect must not be repeated while it is unknown whether it happened.
 * - `key_forgotten`: the service no longer deduplicates by the key, or will not by the next attempt.
 */
export type RetryDecision =
  | 'backoff'
  | 'retry_after'
  | 'callers_turn'
  | 'not_retryable'
  | 'attempts_spent'
  | 'time_budget_spent'
  | 'crash_loop'
  | 'may_have_happened'
  | 'key_forgotten';

/** Why the library stopped waiting for a handler. */
export type AbandonedBy = 'timeout' | 'lease_lost' | 'cancelled' | 'shutdown';

/**
 * Why a delivery is deferred: another worker has the operation, or has taken it over; its time has not come; one of its
 * steps is not finished; the ledger cannot be asked; its dependency rejects it; or this process has stopped it.
 */
export const DEFERRAL_CAUSES = [
  'busy',
  'fenced',
  'not_yet',
  'waiting',
  'unavailable',
  'rejected',
  'stopped',
] as const;

/** One of {@link DEFERRAL_CAUSES}. */
export type DeferralCause = (typeof DEFERRAL_CAUSES)[number];

/** Why a dependency rejects a call or an attempt for now. */
export const REJECTION_CAUSES = ['circuit_open', 'bulkhead_full', 'retry_budget_spent'] as const;

/** One of {@link REJECTION_CAUSES}. */
export type RejectionCause = (typeof REJECTION_CAUSES)[number];

/** Why a fallback answered: the call was rejected, or it failed. */
export const FALLBACK_REASONS = [...REJECTION_CAUSES, 'timeout', 'failed'] as const;

/** One of {@link FALLBACK_REASONS}. */
export type FallbackReason = (typeof FALLBACK_REASONS)[number];

/** The state of a circuit breaker. */
export type CircuitStateName = 'closed' | 'open' | 'half_open' | 'forced_open' | 'forced_closed';
