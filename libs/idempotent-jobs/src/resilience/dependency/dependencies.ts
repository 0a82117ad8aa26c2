import { Inject, Injectable, Optional } from '@nestjs/common';
import { JobEvents } from '../../events/job-events.js';
import { UsageError } from '../../operation/errors.js';
import { RESOLVED_OPTIONS } from '../../options/resolved-options.token.js';
import { Dependency, type DependencyState } from './dependency.js';
import type { DependencyRules } from './dependency.options.js';
import { KnownFailures } from './known-failures.js';
import type { Classify } from '../classify/classify.js';

/** The dependencies of this application, by name. */
@Injectable()
export class Dependencies {
  readonly #known: ReadonlyMap<string, Dependency>;
  readonly #knownFailures = new KnownFailures();

  /** @param now a monotonic clock, in ms */
  constructor(
    @Inject(RESOLVED_OPTIONS) { dependencies }: { readonly dependencies: readonly DependencyRules[] },
    events: JobEvents,
    @Optional() now: () => number = () => performance.now(),
    @Optional() random: () => number = Math.random,
  ) {
    const services = { events, now, random, knownFailures: this.#knownFailures };
    this.#known = new Map(dependencies.map((rules) => [rules.name, new Dependency(rules, services)]));
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
