import type { Failure } from '../../operation/failure.js';
import type { FailureKind } from '../../operation/reasons.js';

/**
 * What the built-in rules know of a failure beyond what it shows, and what others act on:
 *
 * - `answer`: the other side has answered, with a refusal or an error.
 * - `key_in_progress`: it is busy with a request under the same idempotency key.
 * - `timeout`: nobody answered in time, by whoever's clock.
 * - `own_refusal`: the library refused another operation that the handler asked for.
 */
export type FailureSign = 'answer' | 'key_in_progress' | 'timeout' | 'own_refusal';

/**
 * Kept apart from the failures, so that nothing that an application returns or copies can carry one: a reason is a label,
 * whatever it says.
 */
const signs = new WeakMap<Failure, FailureSign>();

/** A failure of a built-in rule, with its sign. @internal */
export function signed(sign: FailureSign, failure: Failure): Failure {
  signs.set(failure, sign);
  return failure;
}

/** Undefined: there is none, or an application has said what kind of failure it is. @internal */
export function signOf(failure: Failure): FailureSign | undefined {
  return signs.get(failure);
}

/** The same failure as one of another kind. @internal */
export function asKind(kind: FailureKind, failure: Failure): Failure {
  const sign = signOf(failure);
  const other = { ...failure, kind };
  return sign === undefined ? other : signed(sign, other);
}
