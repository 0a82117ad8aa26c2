import { Inject, Injectable, Optional } from '@nestjs/common';
import { JobEvents } from '../../events/job-events.js';
import { UsageError } from '../../operation/errors.js';
import type { Failure } from '../../operation/failure.js';
import { causesOf } from '../../operation/thrown.js';
import type { Classify } from '../classify/classify.js';
import { RESOLVED_OPTIONS } from '../../option-checks/resolved-options.token.js';
import { Dependency, type DependencyState } from './dependency.js';
import type { DependencyRules } from './dependency.options.js';

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

/** What guarded calls found out about errors, for code further up that meets the same error. */
export class KnownFailures {
  readonly #known = new WeakMap<object, { readonly source: Dependency; readonly failure: Failure }>();

  /** The first call that notes an error is the one that threw it. */
  note(error: unknown, source: Dependency, failure: Failure): void {
    if (typeof error !== 'object' || error === null || this.#known.has(error)) return;
    this.#known.set(error, { source, failure });
  }

  of(error: unknown): Failure | undefined {
    return this.#known.get(error as object)?.failure;
  }

  /** The dependency whose call threw the error, also when it was wrapped. Undefined when none is known. */
  sourceBehind(error: unknown): Dependency | undefined {
    const source = causesOf(error).find((one) => this.#known.has(one as object));
    return this.#known.get(source as object)?.source;
  }
}
