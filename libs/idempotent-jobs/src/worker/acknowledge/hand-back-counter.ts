import { identityKeyOf, type OperationIdentity } from '../../operation/identity.js';

/** Beyond this number the operation that was handed back longest ago is forgotten, and counts from one again. */
const MAX_COUNTED = 10_000;

/**
 * Counts how often in a row an operation was handed back in this process without an attempt that ended. Nothing else
 * limits hand-backs: they cost neither an attempt nor, in BullMQ, anything at all.
 */
export class HandBackCounter {
  /** Ordered by the last hand-back. */
  readonly #times = new Map<string, number>();

  /** Counts one more, and returns the number. */
  count(operation: OperationIdentity): number {
    const key = identityKeyOf(operation);
    const times = (this.#times.get(key) ?? 0) + 1;
    this.#times.delete(key);
    this.#times.set(key, times);
    const [oldest] = this.#times.keys();
    if (this.#times.size > MAX_COUNTED && oldest !== undefined) this.#times.delete(oldest);
    return times;
  }

  /** Called when an attempt of the operation has ended. */
  forget(operation: OperationIdentity): void {
    if (this.#times.size > 0) this.#times.delete(identityKeyOf(operation));
  }
}
