import type { Permit } from '../circuit-breaker.js';
import type { Failure } from '../../operation/failure.js';
import { signOf } from '../classify/failure-sign.js';
import type { Dependency, EventSubject } from './dependency.js';
import type { Rejection } from './rejection.js';

/** The right to make one call of a dependency. Its holder must {@link leave} in the end, whatever happened. */
export class DependencyPermit {
  readonly kind = 'admitted';

  constructor(
    readonly dependency: Dependency,
    private readonly permit: Permit,
    private readonly giveBack: () => void,
    private readonly isBreaking: boolean,
  ) {}

  /** Called right before the call. Returns a rejection if it is a retry and the budget allows none. */
  begin(isRetry: boolean, subject: EventSubject): Rejection | undefined {
    return this.dependency.spend(isRetry, subject);
  }

  succeeded(subject: EventSubject): void {
    this.dependency.answered(this.permit, subject);
  }

  /**
   * Counts failures that show that the dependency is in trouble: transient ones, and those that leave a doubt. A
   * permanent refusal counts as an answer; a bug or an unrecognised error is not the dependency's fault.
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

  /** Whether another dependency's call threw it, or the library refused an operation. */
  #isAnothers(error: unknown, failure: Failure): boolean {
    const source = this.dependency.knownFailures.sourceBehind(error);
    return (source !== undefined && source !== this.dependency) || signOf(failure) === 'own_refusal';
  }

  /** Ends the call. If no outcome was recorded before, the call says nothing about the dependency. */
  leave(): void {
    this.permit.ignore();
    this.giveBack();
  }
}

/** Whether a call took too long, by either side's clock. A failure that an application merely names so does not count. */
export function isTimeout(failure: Failure): boolean {
  return signOf(failure) === 'timeout';
}
