import type { Claim } from '../../ledger/claim/claim.js';
import type { Dependency } from '../../resilience/dependency/dependency.js';
import type { Rejection } from '../../resilience/dependency/rejection.js';
import type { DependencyPermit } from '../../resilience/dependency/dependency-permit.js';
import type { HandlerResult } from './handler-run.js';
import { classify } from '../../resilience/classify/classify.js';
import { signed } from '../../resilience/classify/failure-sign.js';
import { handsBack, type OperationRun, subjectOf } from './operation-run.js';

/** Leads an attempt past the dependency of its processor. */
export interface DependencyGate {
  /** The dependency that the handler may call. Undefined when it may call none. */
  readonly dependency: Dependency | undefined;
  /** Why the dependency cannot be asked about a doubt. Undefined when it can be asked. */
  readonly rejection: Rejection | undefined;
  /** Called right before the handler. Gives a rejection if the handler must not be called now. */
  admit(run: OperationRun, claim: Claim): Rejection | undefined;
  /** Called with how the handler ended. */
  report(run: OperationRun, result: HandlerResult): void;
}

/** The dependency lets the attempt through, and its permit is told how the attempt went. */
export class AdmittedGate implements DependencyGate {
  readonly rejection = undefined;

  constructor(private readonly permit: DependencyPermit) {}

  get dependency(): Dependency {
    return this.permit.dependency;
  }

  admit(run: OperationRun, { attempt }: Claim): Rejection | undefined {
    return this.permit.begin(attempt > 1, subjectOf(run));
  }

  report(run: OperationRun, result: HandlerResult): void {
    const subject = subjectOf(run);
    switch (result.kind) {
      case 'returned':
        return this.permit.succeeded(subject);
      case 'threw':
        if (handsBack(run, result)) return;
        return this.permit.failed(result.error, classify(result.error, run.rules.classify), subject);
      case 'abandoned':
        // Lost leases and shutdowns are not the dependency's fault.
        if (result.by === 'timeout')
          this.permit.failed(result.error, signed('timeout', { kind: 'in_doubt', code: 'timeout' }), subject);
        return;
      default:
        return result satisfies never;
    }
  }
}

/** The dependency lets nothing through, and the processor's fallback stands in for it. */
export class FallbackGate implements DependencyGate {
  readonly dependency = undefined;

  constructor(readonly rejection: Rejection) {}

  /** An effect that may have happened already must not happen a second time by way of the fallback. */
  admit(_run: OperationRun, claim: Claim): Rejection | undefined {
    return claim.isDoubtful ? this.rejection : undefined;
  }

  report(run: OperationRun, result: HandlerResult): void {
    if (result.kind === 'returned') run.rules.dependency?.fellBack(this.rejection.cause, subjectOf(run));
  }
}
