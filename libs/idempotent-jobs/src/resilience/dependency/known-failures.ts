import { causesOf } from '../../operation/thrown.js';
import type { Failure } from '../../operation/failure.js';
import type { Dependency } from './dependency.js';

interface KnownFailure {
  readonly source: Dependency;
  readonly failure: Failure;
}

/** What guarded calls found out about errors, for whoever meets the same error further up. */
export class KnownFailures {
  readonly #known = new WeakMap<object, KnownFailure>();

  /** The first call that saw an error is the one it came from. */
  note(error: unknown, source: Dependency, failure: Failure): void {
    if (isObject(error) && !this.#known.has(error)) this.#known.set(error, { source, failure });
  }

  of(error: unknown): Failure | undefined {
    return this.#find(error)?.failure;
  }

  /** The dependency whose call threw it, also where it was wrapped; undefined: none that is known. */
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
