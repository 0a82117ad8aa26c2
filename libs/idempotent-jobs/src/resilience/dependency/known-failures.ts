import { causesOf } from '../../operation/thrown.js';
import type { Failure } from '../../operation/failure.js';
import type { Dependency } from './dependency.js';

interface KnownFailure {
  readonly source: Dependency;
  readonly failure: Failure;
}

/** What guarded calls found out about errors, for code further up that meets the same error. */
export class KnownFailures {
  readonly #known = new WeakMap<object, KnownFailure>();

  /** The first call that notes an error is the one that threw it. */
  note(error: unknown, source: Dependency, failure: Failure): void {
    if (isObject(error) && !this.#known.has(error)) this.#known.set(error, { source, failure });
  }

  of(error: unknown): Failure | undefined {
    return this.#find(error)?.failure;
  }

  /** The dependency whose call threw the error, also when it was wrapped. Undefined when none is known. */
  sourceBehind(error: unknown): Dependency | undefined {
    for (const one of causesOf(error)) {
      const reading = this.#find(one);
      if (reading !== undefined) return reading.source;
    }
    return undefined;
  }

  #find(error: unknown): KnownFailure | undefined {
    return isObject(error) ? this.#known.get(error) : undefined;
  }
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null;
}
