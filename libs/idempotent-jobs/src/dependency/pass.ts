import type { Permit } from '../resilience/circuit-state.js';
import type { Failure } from '../resilience/failure.js';
import { reasonLabelOf } from '../resilience/reason-label.js';
import type { Dependency, EventSubject } from './dependency.js';
import type { Hold } from './hold.js';

/** The right to make one call of a dependency. Whoever has it must {@link leave} in the end, whatever happened. */
export class Pass {
  readonly kind = 'admitted';

  constructor(
    readonly dependency: Dependency,
    private readonly permit: Permit,
    private readonly giveBack: () => void,
    private readonly isBreaking: boolean,
  ) {}

  /** Right before the call: a hold, if it is a retry that is not to be had now. */
  begin(isRetry: boolean, subject: EventSubject): Hold | undefined {
    return this.dependency.spend(isRetry, subject);
  }

  succeeded(): void {
    this.permit.succeed();
  }

  /**
   * Counts what says that the dependency is in trouble: transient failures, and those that leave a doubt. An answer that
   * refuses the request for good is an answer. A bug, an error that says nothing: these are not its doing.
   */
  failed(failure: Failure, subject: EventSubject): void {
    const { kind, reason } = failure;
    if (this.isBreaking && (kind === 'transient' || kind === 'in_doubt')) this.permit.fail();
    else if (kind === 'permanent' && IS_ANSWER.test(reason)) this.permit.succeed();
    else this.permit.ignore();
    if (isTimeout(failure)) this.dependency.timedOut(subject);
  }

  /** Ends the call. Without a word before, it says nothing about the dependency. */
  leave(): void {
    this.permit.ignore();
    this.giveBack();
  }
}

/** Whether a call took too long, by whoever's clock. */
export function isTimeout(failure: Failure): boolean {
  return reasonLabelOf(failure) === 'timeout';
}

/** Reasons that the other side has given, e.g. `http_404`. */
const IS_ANSWER = /^(?:http|smtp)_/;
