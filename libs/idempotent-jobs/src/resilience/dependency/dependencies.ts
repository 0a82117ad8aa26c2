import { UsageError } from '../../operation/errors.js';
import { Dependency, type DependencyServices, type DependencyState } from './dependency.js';
import type { DependencyRules } from './dependency.options.js';
import { KnownFailures } from './known-failures.js';
import type { Classify } from '../classify/classify.js';

/** The dependencies of this application, by name. */
export class Dependencies {
  readonly #known: ReadonlyMap<string, Dependency>;
  readonly #knownFailures = new KnownFailures();

  constructor(settings: readonly DependencyRules[], services: Omit<DependencyServices, 'knownFailures'>) {
    this.#known = new Map(
      settings.map((one) => [
        one.name,
        new Dependency(one, { ...services, knownFailures: this.#knownFailures }),
      ]),
    );
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

  /** Classifies an error by the guarded call that threw it. Undefined when the application has no dependencies. */
  get knownFailureOf(): Classify | undefined {
    return this.#known.size === 0 ? undefined : (error) => this.#knownFailures.of(error);
  }

  /** For messages: where dependencies are declared, and which ones exist. */
  get names(): string {
    return `forRoot({ dependencies }): ${[...this.#known.keys()].join(', ') || 'there are none'}`;
  }

  get states(): readonly DependencyState[] {
    return [...this.#known.values()].map(({ state }) => state);
  }
}
