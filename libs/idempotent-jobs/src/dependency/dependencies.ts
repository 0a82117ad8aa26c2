import { UsageError } from '../operation/errors.js';
import { Dependency, type DependencyServices, type DependencyState } from './dependency.js';
import type { DependencySettings } from './dependency.options.js';
import type { Classify } from '../resilience/classify.js';
import type { Failure } from '../resilience/failure.js';

/** The dependencies of this application, by name. */
export class Dependencies {
  readonly #known: ReadonlyMap<string, Dependency>;
  readonly #readings = new WeakMap<object, Failure>();

  constructor(settings: readonly DependencySettings[], services: DependencyServices) {
    this.#known = new Map(settings.map((one) => [one.name, new Dependency(one, services)]));
    const reads = settings.some(({ classify }) => classify !== undefined);
    this.readingOf = reads ? (error) => (isObject(error) ? this.#readings.get(error) : undefined) : undefined;
  }

  find(name: string): Dependency | undefined {
    return this.#known.get(name);
  }

  /** @throws UsageError for a name that is not declared */
  named(name: string): Dependency {
    const found = this.find(name);
    if (found === undefined)
      throw new UsageError(`There is no dependency ${JSON.stringify(name)} among ${this.names}.`);
    return found;
  }

  /**
   * What a guarded call of a dependency with a `classify` of its own found out about an error, for whoever meets that
   * error further up. Undefined: no dependency has one.
   */
  readonly readingOf: Classify | undefined;

  noteReading(error: unknown, reading: Failure): void {
    if (isObject(error)) this.#readings.set(error, reading);
  }

  /** For messages: where they are declared, and which there are. */
  get names(): string {
    return `forRoot({ dependencies }): ${[...this.#known.keys()].join(', ') || 'there are none'}`;
  }

  get states(): readonly DependencyState[] {
    return [...this.#known.values()].map(({ state }) => state);
  }
}

function isObject(error: unknown): error is object {
  return typeof error === 'object' && error !== null;
}
