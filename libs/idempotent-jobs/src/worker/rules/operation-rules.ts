import type { ClaimRules } from '../../ledger/claim/claim.js';
import type { Dependency } from '../../resilience/dependency/dependency.js';
import type { KeyedDependency } from '../../resilience/dependency/dependency-key.js';
import type { Effect } from '../../operation/effect.js';
import type { ReconcileRules } from './reconcile.options.js';
import type { ResultRules } from '../../ledger/record/kept-result.js';
import type { Classify } from '../../resilience/classify/classify.js';
import type { RetryPolicy } from './decide.js';
import type { Identify } from '../identify/identify.js';
import type { PayloadRule } from './validate-payload.js';

/** A processor's options with all defaults filled in. */
export interface OperationRules {
  readonly queue: string;
  readonly effect: Effect;
  readonly leaseMs: number;
  readonly timeoutMs: number;
  readonly claim: ClaimRules;
  readonly policy: RetryPolicy;
  /** How to ask about a doubt. Undefined when there is no way. */
  readonly reconcile: ReconcileRules | undefined;
  /** The dependency that the handler calls. Undefined when it calls none that is guarded. */
  readonly dependency: Dependency | undefined;
  /** Gives the key whose circuit an operation has. Undefined when it has the dependency's own circuit. */
  readonly per?: KeyedDependency['per'] | undefined;
  /** Whether the class has a `fallback()` that stands in for the dependency. */
  readonly hasFallback: boolean;
  readonly results: ResultRules;
  readonly identify: Identify | undefined;
  /** Whether an earlier start of a plain job counts as an unrecorded attempt. */
  readonly doubtsEarlierStarts: boolean;
  readonly classify: Classify | undefined;
  /** The names of jobs that the options name. Default: none. */
  readonly jobNames?: readonly string[];
  readonly payloadRuleOf: (jobName: string) => PayloadRule;
}
