import type { ClaimRules } from '../../ledger/claim/claim.js';
import type { Dependency } from '../../resilience/dependency/dependency.js';
import type { KeyedDependency } from '../../resilience/dependency/dependency-key.js';
import type { Effect } from '../../operation/effect.js';
import type { ReconcileRules } from './reconcile.options.js';
import type { ResultRules } from '../../ledger/record/recorded-result.js';
import type { Classify } from '../../resilience/classify/classify.js';
import type { RetryPolicy } from './decide.js';
import type { Identify } from '../identify/identify.js';
import type { PayloadRule } from './validate-payload.js';
import type { Job } from 'bullmq';
import type { Provenance } from '../../producer/envelope.js';
import type { IdempotentProcessorOptions } from './processor.options.js';
import type { RetryRules } from './retry.options.js';

/** How an operation is run, with all defaults filled in: for a job, a step or a call. */
export interface OperationRules {
  readonly effect: Effect;
  readonly timeoutMs: number;
  /** Whether first attempts are made without a claim. */
  readonly isOptimistic: boolean;
  readonly claim: ClaimRules;
  readonly policy: RetryPolicy;
  /** How to ask about a doubt. Undefined when there is no way. */
  readonly reconcile: ReconcileRules | undefined;
  /** The dependency that the handler calls. Undefined when it calls none that is guarded. */
  readonly dependency: Dependency | undefined;
  /** Gives the key whose circuit an operation has. Undefined when it has the dependency's own circuit. */
  readonly per?: KeyedDependency['per'] | undefined;
  readonly results: ResultRules;
  readonly classify: Classify | undefined;
}

/** The rules of a processor, which also say what is made of its jobs. */
export interface ProcessorRules extends OperationRules {
  readonly queue: string;
  /** Whether the class has a `fallback()` that stands in for the dependency. */
  readonly hasFallback: boolean;
  readonly identify: Identify | undefined;
  /** Whether an earlier start of a plain job counts as an unrecorded attempt. */
  readonly doubtsEarlierStarts: boolean;
  /** The names of jobs that the options name. */
  readonly jobNames: readonly string[];
  readonly payloadRuleOf: (jobName: string) => PayloadRule;
}

/** Long for a call over a network, short for a worker that waits for an answer that will never come. */
export const DEFAULT_TIMEOUT_MS = 30_000;

/** The policies that a processor's jobs may have. */
interface PoliciesInUse {
  readonly own: RetryRules;
  readonly byJob: readonly (readonly [jobName: string, policy: RetryRules])[];
  readonly named: ReadonlyMap<string, RetryRules>;
}

/**
 * A processor's rules under each retry policy that its jobs may have. The operation's own policy, asked for with
 * `enqueue(…, { retryPolicy })`, takes precedence over its job name's, and that one over the processor's.
 *
 * Each is made once: claims under the same rules share statements.
 */
export class RulesByPolicy {
  /** The rules under the processor's own policy. */
  readonly own: ProcessorRules;
  readonly #byJob: ReadonlyMap<string, ProcessorRules>;
  readonly #byPolicy = new Map<string, ProcessorRules>();

  constructor(
    private readonly rules: ProcessorRules,
    private readonly options: Pick<IdempotentProcessorOptions, 'timeoutMs' | 'timeBudgetMs'>,
    private readonly policies: PoliciesInUse,
  ) {
    this.own = this.#under(policies.own);
    this.#byJob = new Map(policies.byJob.map(([jobName, policy]) => [jobName, this.#under(policy)]));
  }

  /**
   * The rules of a job. `unknownPolicy` is the policy that the job asks for if this application does not have it; the
   * job then gets another one.
   */
  of(
    job: Pick<Job, 'name'>,
    provenance: Provenance,
  ): { readonly rules: ProcessorRules; readonly unknownPolicy: string | undefined } {
    const asked =
      provenance.kind === 'ours' ? policyNameIn(provenance.envelope.operation.retryPolicy) : undefined;
    const named = asked === undefined ? undefined : this.#named(asked);
    return {
      rules: named ?? this.#byJob.get(job.name) ?? this.own,
      unknownPolicy: named === undefined ? asked : undefined,
    };
  }

  /** How often a job may stall until the ledger surely gives it up, under the most patient of the policies. */
  get stalls(): number {
    const { own, byJob, named } = this.policies;
    // A first attempt without a claim leaves the ledger no record of its crash.
    const unrecorded = this.rules.isOptimistic ? 1 : 0;
    return (
      unrecorded +
      Math.max(
        ...[own, ...byJob.map(([, policy]) => policy), ...named.values()].map(({ crashes }) => crashes),
      )
    );
  }

  #named(name: string): ProcessorRules | undefined {
    const policy = this.policies.named.get(name);
    if (policy === undefined) return undefined;
    let rules = this.#byPolicy.get(name);
    if (rules === undefined) {
      rules = this.#under(policy);
      this.#byPolicy.set(name, rules);
    }
    return rules;
  }

  #under({ attempts, crashes, backoff, timeoutMs, budgetMs }: RetryRules): ProcessorRules {
    const { rules, options } = this;
    return {
      ...rules,
      timeoutMs: Math.min(
        options.timeoutMs ?? timeoutMs ?? DEFAULT_TIMEOUT_MS,
        rules.dependency?.timeoutMs ?? Infinity,
      ),
      claim: { ...rules.claim, budgetMs: options.timeBudgetMs ?? budgetMs ?? null },
      policy: { ...rules.policy, attempts, crashes, backoff },
    };
  }
}

/** The policy that a job asks for. Producers can write anything there, also what is not a string. */
function policyNameIn(asked: unknown): string | undefined {
  return asked === undefined || typeof asked === 'string' ? asked : '(not a name)';
}
