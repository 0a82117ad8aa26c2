import type { Claim } from '../claim/claim.js';
import type { Dependency } from '../dependency/dependency.js';
import type { Hold } from '../dependency/hold.js';
import type { Pass } from '../dependency/pass.js';
import type { Execution } from '../execute/attempt.js';
import { classify } from '../resilience/classify.js';
import { signed } from '../resilience/failure-sign.js';
import { handsBack, type RunContext, subjectOf } from './run-context.js';

/** How an attempt gets past the dependency of its processor. */
export interface Entrance {
  /** The dependency that the handler may call under it; undefined: none. */
  readonly dependency: Dependency | undefined;
  /** What keeps the dependency from being asked about a doubt; undefined: nothing. */
  readonly hold: Hold | undefined;
  /** Right before the handler: a hold, if it must not be called now. */
  admit(context: RunContext, claim: Claim): Hold | undefined;
  /** How the handler ended. */
  heard(context: RunContext, execution: Execution): void;
}

/** The dependency lets the attempt through, and hears how it went. */
export class ThroughDependency implements Entrance {
  readonly hold = undefined;

  constructor(private readonly pass: Pass) {}

  get dependency(): Dependency {
    return this.pass.dependency;
  }

  admit(context: RunContext, { attempt }: Claim): Hold | undefined {
    return this.pass.begin(attempt > 1, subjectOf(context));
  }

  heard(context: RunContext, execution: Execution): void {
    const subject = subjectOf(context);
    switch (execution.kind) {
      case 'returned':
        return this.pass.succeeded(subject);
      case 'threw':
        if (handsBack(context, execution)) return;
        return this.pass.failed(
          execution.error,
          classify(execution.error, context.delivery.processor.classify),
          subject,
        );
      case 'abandoned':
        // Lost leases and shutdowns are not the dependency's doing.
        if (execution.why === 'timeout')
          this.pass.failed(
            execution.error,
            signed('timeout', { kind: 'in_doubt', reason: 'timeout' }),
            subject,
          );
        return;
      default:
        return execution satisfies never;
    }
  }
}

/** The dependency lets nothing through, and the processor's fallback stands in for it. */
export class StandIn implements Entrance {
  readonly dependency = undefined;

  constructor(readonly hold: Hold) {}

  /** What may have happened already must not happen a second time in another way. */
  admit(_context: RunContext, claim: Claim): Hold | undefined {
    return claim.isDoubtful ? this.hold : undefined;
  }

  heard(context: RunContext, execution: Execution): void {
    if (execution.kind !== 'returned') return;
    const { dependency } = context.delivery.processor;
    dependency?.fellBack(this.hold.cause, subjectOf(context));
  }
}
