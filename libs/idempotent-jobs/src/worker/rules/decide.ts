import { nextQuestionMs, type ReconcileSchedule } from './reconcile.options.js';
import { type DeadLetterReason, type RetryDecision } from '../../operation/reasons.js';
import type { Effect } from '../../operation/effect.js';
import { backoffMs, type BackoffOptions } from '../../resilience/backoff.js';
import type { Failure } from '../../operation/failure.js';
import { signOf } from '../../resilience/classify/failure-sign.js';

/** How often and how long an operation is tried. */
export interface RetryPolicy {
  /** Attempts in all, the first included. */
  readonly attempts: number;
  readonly backoff: BackoffOptions;
  /** How many attempts may vanish with their worker before the operation counts as killing its workers. */
  readonly crashes: number;
  /** When to ask about a doubt. Undefined when no service can be asked. */
  readonly schedule: ReconcileSchedule | undefined;
  /**
   * Whether another party decides about further attempts: the handler that a step belongs to, or the caller of a
   * service method. Such operations are neither paused nor given up here.
   */
  readonly isCallers: boolean;
}

/** What the ledger knows when an attempt has failed. */
export interface AttemptFacts {
  readonly attempt: number;
  readonly failures: number;
  /** The last wait between attempts, in ms. Undefined when there was none. */
  readonly lastDelayMs: number | undefined;
  readonly isDoubtful: boolean;
  readonly remainingMs: number | undefined;
  readonly repeatableMs: number;
}

/** What becomes of an operation after a failed attempt, and the decision that led to it. */
export type NextStep = { readonly decision: RetryDecision } & (
  | { readonly status: 'retrying'; readonly delayMs: number; readonly isDoubtful: boolean }
  | { readonly status: 'dead'; readonly reason: DeadLetterReason; readonly isDoubtful: boolean }
  /** The service is asked in `reconcileInMs`; undefined when a person has to find out. */
  | {
      readonly status: 'in_doubt';
      readonly reason: 'in_doubt';
      readonly isDoubtful: true;
      readonly reconcileInMs: number | undefined;
    }
);

/**
 * Decides after a failed attempt. Pure: the same facts and the same random number give the same decision.
 *
 * The failure says whether the effect may have happened, the effect's kind says whether that matters, and the policy
 * says how often to try. An error that says neither is treated with care. Where repeating is safe, the operation is
 * tried again, unless the error is a bug. Where it is not, the operation is in doubt.
 */
export function decideFailure(
  failure: Failure,
  effect: Effect,
  facts: AttemptFacts,
  policy: RetryPolicy,
  random: () => number,
): NextStep {
  // For a keyed request, 409 means "in progress". For any other it means a conflict, which another try will not end.
  if (signOf(failure) === 'key_in_progress' && failure.kind === 'transient' && effect !== 'keyed')
    return decideFailure({ ...failure, kind: 'permanent' }, effect, facts, policy, random);
  const isRevertible = effect === 'natural' || effect === 'transactional';
  const saysNothing = failure.kind === 'unknown' || failure.kind === 'programming';
  const mayHaveHappened = !isRevertible && (failure.kind === 'in_doubt' || saysNothing);
  const isDoubtful = mayHaveHappened || facts.isDoubtful;

  if ((effect === 'unrepeatable' || effect === 'reconciled') && mayHaveHappened)
    return doubt(policy, 'may_have_happened');
  // The service has forgotten the key, so an effect that may have happened can no longer be repeated safely.
  if (!isRevertible && isDoubtful && facts.repeatableMs <= 0)
    return doubt(policy, effect === 'keyed' ? 'key_forgotten' : 'may_have_happened');
  // The caller decides what comes next: the effect did not happen, or may be repeated.
  if (policy.isCallers) return { status: 'retrying', delayMs: 0, isDoubtful, decision: 'callers_turn' };
  // If a service can be asked about the doubt, it is asked before the operation is given up.
  const giveUp = (reason: DeadLetterReason): NextStep =>
    !isRevertible && isDoubtful && policy.schedule !== undefined
      ? doubt(policy, decisionOf(reason))
      : { status: 'dead', reason, isDoubtful, decision: decisionOf(reason) };
  if (failure.kind === 'permanent' || failure.kind === 'programming') return giveUp('permanent_error');
  if (facts.attempt >= policy.attempts) return giveUp('retries_exhausted');

  const waitMs = backoffMs(
    {
      failures: facts.failures + 1,
      previousMs: facts.failures === 0 ? undefined : facts.lastDelayMs,
      isThrottled: failure.isThrottled === true,
    },
    policy.backoff,
    random,
  );
  const delayMs = Math.max(waitMs, spread(failure.retryAfterMs ?? 0, random));
  if (facts.remainingMs !== undefined && delayMs >= facts.remainingMs) return giveUp('time_budget_exceeded');
  // The service will have forgotten the key by then: another try could be a second effect.
  if (isDoubtful && delayMs >= facts.repeatableMs) return doubt(policy, 'key_forgotten');
  return { status: 'retrying', delayMs, isDoubtful, decision: delayMs > waitMs ? 'retry_after' : 'backoff' };
}

/**
 * Adds jitter, so that operations with the same `retryAfterMs` do not all come back at one moment. Never earlier; up to
 * a tenth later, at most a second: that is enough.
 */
function spread(retryAfterMs: number, random: () => number): number {
  return Math.ceil(retryAfterMs + random() * Math.min(retryAfterMs / 10, 1000));
}

function doubt({ schedule: plan }: RetryPolicy, why: RetryDecision): NextStep {
  const reconcileInMs = plan === undefined ? undefined : nextQuestionMs(plan, 0);
  return { status: 'in_doubt', reason: 'in_doubt', isDoubtful: true, reconcileInMs, decision: why };
}

/** The reason of an operation's dead letter, as the history of its attempts names it. */
export function decisionOf(reason: DeadLetterReason): RetryDecision {
  switch (reason) {
    case 'retries_exhausted':
      return 'attempts_spent';
    case 'time_budget_exceeded':
    case 'deferred_too_long':
      return 'time_budget_spent';
    case 'crash_loop':
      return 'crash_loop';
    default:
      return 'not_retryable';
  }
}

/**
 * Decides about an operation that its dependency rejects. It waits, but not beyond its time budget, which counts from
 * its first attempt, or from when an open circuit kept it from that. Without a budget it waits without limit.
 */
export function decideRejected(
  { remainingMs, attempts }: { readonly remainingMs: number | undefined; readonly attempts: number },
  holdMs: number,
):
  | { readonly kind: 'defer'; readonly delayMs: number }
  | { readonly kind: 'give_up'; readonly reason: DeadLetterReason } {
  if (remainingMs === undefined || remainingMs > 0)
    return { kind: 'defer', delayMs: Math.min(holdMs, remainingMs ?? Infinity) };
  return { kind: 'give_up', reason: attempts === 0 ? 'deferred_too_long' : 'time_budget_exceeded' };
}

/** Why an attempt that was just claimed must not run. Undefined when it may. */
export function decideStart(facts: AttemptFacts, policy: RetryPolicy): DeadLetterReason | undefined {
  if (policy.isCallers) return undefined;
  const vanished = facts.attempt - 1 - facts.failures;
  if (facts.remainingMs !== undefined && facts.remainingMs <= 0) return 'time_budget_exceeded';
  if (vanished >= policy.crashes) return 'crash_loop';
  // The policy was made stricter, or a crash followed the last attempt.
  if (facts.attempt > policy.attempts) return vanished > 0 ? 'crash_loop' : 'retries_exhausted';
  return undefined;
}
