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
  /** How to ask about a doubt; undefined: there is no way. */
  readonly reconcile: ReconcileRules | undefined;
  /** What the handler calls; undefined: nothing that is guarded. */
  readonly dependency: Dependency | undefined;
  /** Which of the dependency's circuits an operation has; undefined: the one of all calls without a key. */
  readonly per?: KeyedDependency['per'] | undefined;
  /** Whether the class has a `fallback()` that stands in for the dependency. */
  readonly hasFallback: boolean;
  readonly results: ResultRules;
  readonly identify: Identify | undefined;
  /** Whether a plain job that was started before is an attempt that nobody recorded. */
  readonly doubtsEarlierStarts: boolean;
  readonly classify: Classify | undefined;
  /** The names of jobs that are known without having seen one. Default: none. */
  readonly jobNames?: readonly string[];
  readonly payloadRuleOf: (jobName: string) => PayloadRule;
}
