import type { Failure } from '../../operation/failure.js';
import type { FailureKind } from '../../operation/reasons.js';

/**
 * What the built-in rules know about a failure beyond its fields:
 *
 * - `answer`: the other side has answered, with a refusal or an error.
 * - `key_in_progress`: it is busy with a request under the same idempotency key.
 * - `timeout`: no answer came in time, by either side's clock.
 * - `own_refusal`: the library refused another operation that the handler asked for.
 */
export type FailureSign = 'answer' | 'key_in_progress' | 'timeout' | 'own_refusal';

/**
 * Signs are kept apart from the failures, so that no failure that an application returns or copies has one: its failure
 * code is only a label.
 */
const signs = new WeakMap<Failure, FailureSign>();

/** A failure of a built-in rule, with its sign. @internal */
export function signed(sign: FailureSign, failure: Failure): Failure {
  signs.set(failure, sign);
  return failure;
}

/** Undefined when there is none, or when an application has said what kind of failure it is. @internal */
export function signOf(failure: Failure): FailureSign | undefined {
  return signs.get(failure);
}

/** The same failure with another kind. @internal */
export function asKind(kind: FailureKind, failure: Failure): Failure {
  const sign = signOf(failure);
  const other = { ...failure, kind };
  return sign === undefined ? other : signed(sign, other);
}
