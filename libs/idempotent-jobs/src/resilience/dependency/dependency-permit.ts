import type { Permit } from '../circuit-state.js';
import type { Failure } from '../../operation/failure.js';
import { signOf } from '../classify/failure-sign.js';
import type { Dependency, EventSubject } from './dependency.js';
import type { Rejection } from './rejection.js';

/** The right to make one call of a dependency. Whoever has it must {@link leave} in the end, whatever happened. */
export class DependencyPermit {
  readonly kind = 'admitted';

  constructor(
    readonly dependency: Dependency,
    private readonly permit: Permit,
    private readonly giveBack: () => void,
    private readonly isBreaking: boolean,
  ) {}

  /** Right before the call: a hold, if it is a retry that is not to be had now. */
  begin(isRetry: boolean, subject: EventSubject): Rejection | undefined {
    return this.dependency.spend(isRetry, subject);
  }

  succeeded(subject: EventSubject): void {
    this.dependency.answered(this.permit, subject);
  }

  /**
   * Counts what says that the dependency is in trouble: transient failures, and those that leave a doubt. An answer that
   * refuses the request for good is an answer; a bug, and an error that says nothing, are not its doing.
   */
  failed(error: unknown, failure: Failure, subject: EventSubject): void {
    if (this.#isAnothers(error, failure)) return this.permit.ignore();
    if (isTimeout(failure)) this.dependency.timedOut(subject);
    const { kind } = failure;
    if (kind === 'permanent' && signOf(failure) === 'answer') return this.succeeded(subject);
    if (this.isBreaking && (kind === 'transient' || kind === 'in_doubt'))
      this.dependency.failed(this.permit, subject);
    else this.permit.ignore();
  }

  /** What another dependency's call threw, and what the library refused. */
  #isAnothers(error: unknown, failure: Failure): boolean {
    const source = this.dependency.knownFailures.sourceBehind(error);
    return (source !== undefined && source !== this.dependency) || signOf(failure) === 'own_refusal';
  }

  /** Ends the call. Without a word before, it says nothing about the dependency. */
  leave(): void {
    this.permit.ignore();
    this.giveBack();
  }
}

/** Whether a call took too long, by whoever's clock; not because an application has named its failure so. */
export function isTimeout(failure: Failure): boolean {
  return signOf(failure) === 'timeout';
}
