import { DEFAULT_KEY_RETENTION_MS, type Effect, EFFECTS, repeatableForMs } from '../../operation/effect.js';
import { ConfigurationError } from '../../operation/errors.js';
import { type Classify, inOrder } from '../../resilience/classify/classify.js';
import { type OptionChecks, optionChecks } from '../../option-checks/option-checks.js';
import { type ReconcileOptions, resolveReconcile } from './reconcile.options.js';
import type { Dependencies } from '../../resilience/dependency/dependencies.js';
import type { Dependency } from '../../resilience/dependency/dependency.js';
import type { KeyedDependency } from '../../resilience/dependency/dependency-key.js';
import type { Identify } from '../identify/identify.js';
import { DEFAULT_TIMEOUT_MS, RulesByPolicy, type ProcessorRules } from './operation-rules.js';
import { budgetOf, policyOf, type RetryOptions, type RetryRules } from './retry.options.js';
import { ANY_PAYLOAD, type PayloadClass, type PayloadRule } from './validate-payload.js';

/** What the decorator stores on a class. */
export interface ProcessorDeclaration {
  readonly queue: string;
  readonly options: IdempotentProcessorOptions;
  /** False when the application starts the worker itself: `workerOptions.autorun: false`. */
  readonly isStarted: boolean;
  /** Whether the class has a `reconcile()`. */
  readonly canReconcile: boolean;
  /** Whether it has a `fallback()`. */
  readonly hasFallback: boolean;
  /** Whether the worker options limit how often a job may stall. If not, the policy does. */
  readonly limitsStalls: boolean;
}

/** Metadata key of a {@link ProcessorDeclaration}. */
export const PROCESSOR_DECLARATION = Symbol('nestjs-idempotent-jobs:processor');

/** What `@IdempotentProcessor()` needs to know about a processor. */
export interface IdempotentProcessorOptions {
  /** What kind of side effect the handler has. Default `unrepeatable`, the careful one. */
  readonly effect?: Effect;
  /** For `keyed`: how long the service remembers a key, in ms from the first attempt. Default 24 h. */
  readonly keyRetentionMs?: number;
  /**
   * For `natural`: whether first attempts are made without a claim, which is one write less. Two deliveries at one time then
   * both run the handler, and the first recorded outcome counts; a crash leaves no record of its attempt; and the token of
   * `currentOperation()` is 0 and fences nothing. Default false.
   */
  readonly optimistic?: boolean;
  /** For `reconciled`, and for `keyed` with a `reconcile()`: when and how the service is asked about a doubt. */
  readonly reconcile?: ReconcileOptions;
  /** The class-validator DTO of the payload, or one per job name. Without it payloads are not validated. */
  readonly payload?: PayloadClass | Readonly<Record<string, PayloadClass>>;
  /**
   * What becomes of a job whose name is missing where `payload` lists DTOs by job name: `refuse` (default) writes a
   * dead letter `payload_invalid`, `accept` runs it with its payload as it is.
   */
  readonly unlistedPayloads?: 'refuse' | 'accept';
  /** How long an attempt may take, in ms. Default: the policy's `timeoutMs`, or else 30,000. */
  readonly timeoutMs?: number;
  /**
   * How long all attempts together may take, in ms from the first. Default: the policy's `timeBudgetMs`, or else no
   * limit.
   */
  readonly timeBudgetMs?: number;
  /** How often and how long to try: a policy, or the name of one of `forRoot({ retryPolicies })`. */
  readonly retry?: RetryOptions | string;
  /** Other policies for some of the queue's jobs, by job name. */
  readonly retryByJob?: Readonly<Record<string, RetryOptions | string>>;
  /**
   * What the handler calls: the name of one of `forRoot({ dependencies })`. While its circuit is open, its bulkhead
   * full or its retry budget spent, jobs are deferred without spending an attempt.
   *
   * `{ name, per }`: each key has a circuit and a retry budget of its own, so that a failing endpoint of one tenant
   * does not reject the jobs of other tenants.
   */
  readonly dependency?: string | KeyedDependency;
  /**
   * Whether workers with this option take nothing off the queue while the dependency's circuit is open. For queues
   * whose jobs all need the dependency; not with a circuit for each key. Default false.
   */
  readonly pauseQueue?: boolean;
  /**
   * How often the HTTP client or SDK that the handler calls retries a call by itself; 0 for never. It changes nothing,
   * but lets the doctor multiply the retries. Default: the dependency's `clientRetries`, or else not declared.
   */
  readonly clientRetries?: number;
  /**
   * How long a vanished worker keeps its claim, in ms. The lease is renewed after a third of it. Default: the module's
   * `leaseMs`.
   */
  readonly leaseMs?: number;
  /**
   * Whether what the handler returns is kept and replayed. If false, no caller gets a result, neither at the first run
   * nor later. Default true.
   */
  readonly storeResult?: boolean;
  /**
   * Gives what to keep in place of a result, e.g. without secrets. The first run's callers get the same. Synchronous.
   * If it throws, nothing is kept, and the operation completes all the same.
   */
  readonly redact?: (result: any) => unknown;
  /** For producers that write plain data: names the operation of a job. */
  readonly identify?: Identify;
  /**
   * How to treat a plain job that has no record but was started before, for example by a worker from before the
   * library.
   *
   * - `doubt` (default): as an unrecorded attempt, which `unrepeatable` and `reconciled` must not repeat unasked.
   * - `run`: like any other job.
   */
  readonly startedElsewhere?: 'doubt' | 'run';
  /** Classifies an error before the built-in rules; undefined leaves it to them. Its `code` is only a label. */
  readonly classify?: Classify;
}

/** The application's options that processors use. */
export interface ProcessorDefaults {
  readonly leaseMs: number;
  readonly retentionMs: number;
  readonly results: { readonly maxBytes: number };
  readonly retryPolicies: ReadonlyMap<string, RetryRules>;
  readonly dependencies: Pick<Dependencies, 'find' | 'names' | 'knownFailureOf'>;
}

/** Fills in the defaults. @throws ConfigurationError naming each option that is wrong, its value and the fix */
export function resolveProcessorOptions(
  className: string,
  {
    queue,
    options,
    canReconcile,
    hasFallback,
  }: Pick<ProcessorDeclaration, 'queue' | 'options' | 'canReconcile' | 'hasFallback'>,
  defaults: ProcessorDefaults,
): RulesByPolicy {
  const checks = optionChecks(`@IdempotentProcessor("${queue}") on ${className}`);
  const effect = options.effect ?? 'unrepeatable';
  if (!EFFECTS.includes(effect)) {
    checks.fail('effect', effect, `one of ${EFFECTS.map((known) => `"${known}"`).join(', ')}`);
  }
  if (options.keyRetentionMs !== undefined && effect !== 'keyed') {
    checks.fail('keyRetentionMs', options.keyRetentionMs, 'left out unless effect is "keyed"');
  }
  if (options.optimistic === true && effect !== 'natural')
    checks.fail('optimistic', true, 'left out unless effect is "natural", which may be repeated at any time');
  if (options.optimistic === true && hasFallback)
    checks.fail(
      'optimistic',
      true,
      'left out where the class has a fallback(), which must not stand in for an attempt that left no record',
    );
  checkReconcile(checks, effect, canReconcile, options.reconcile);
  const reconcile = canReconcile ? resolveReconcile(checks, options.reconcile) : undefined;
  const leaseMs = checks.timer('leaseMs', options.leaseMs, defaults.leaseMs, 500);
  const keyRetentionMs = checks.positive('keyRetentionMs', options.keyRetentionMs, DEFAULT_KEY_RETENTION_MS);
  const retry = policyOf(checks, 'retry', options.retry, defaults.retryPolicies);
  const dependency = dependencyOf(checks, options.dependency, defaults.dependencies);
  const rules: ProcessorRules = {
    queue,
    effect,
    timeoutMs: DEFAULT_TIMEOUT_MS,
    isOptimistic: checks.flag('optimistic', options.optimistic, false),
    claim: {
      queue,
      origin: 'job',
      effect,
      leaseMs,
      repeatableMs: repeatableForMs(effect, keyRetentionMs),
      budgetMs: null,
      retentionMs: defaults.retentionMs,
      canReconcile,
    },
    policy: {
      attempts: retry.attempts,
      crashes: retry.crashes,
      backoff: retry.backoff,
      schedule: reconcile?.schedule,
      isCallers: false,
    },
    reconcile,
    dependency,
    per: typeof options.dependency === 'object' ? options.dependency.per : undefined,
    hasFallback,
    results: {
      isStored: checks.flag('storeResult', options.storeResult, true),
      redact: options.redact,
      maxBytes: defaults.results.maxBytes,
    },
    identify: options.identify,
    doubtsEarlierStarts: doubtsEarlierStarts(effect, options.startedElsewhere, checks),
    classify: inOrder(options.classify, defaults.dependencies.knownFailureOf, dependency?.classify),
    jobNames: jobNamesOf(options),
    payloadRuleOf: payloadRules(options, checks),
  };
  if (options.timeoutMs !== undefined) checks.timer('timeoutMs', options.timeoutMs, 0);
  if (options.timeBudgetMs !== undefined) budgetOf(checks, 'timeBudgetMs', options.timeBudgetMs);
  const byJob = Object.entries(options.retryByJob ?? {}).map(
    ([jobName, asked]) =>
      [jobName, policyOf(checks, `retryByJob.${jobName}`, asked, defaults.retryPolicies)] as const,
  );
  checks.flag('pauseQueue', options.pauseQueue, false);
  if (dependency === undefined && options.pauseQueue === true)
    checks.fail('pauseQueue', true, 'left out unless the processor has a dependency');
  if (rules.per !== undefined && options.pauseQueue === true)
    checks.fail('pauseQueue', true, 'left out where dependency has a "per": one key would pause all others');
  if (dependency === undefined && hasFallback)
    checks.fail('dependency', undefined, 'given, because the class has a fallback() that stands in for it');
  checks.countFromZero('clientRetries', options.clientRetries, 0);
  for (const name of ['redact', 'identify', 'classify'] as const) checks.callback(name, options[name]);
  checks.throwIfAny((message) => new ConfigurationError(message));
  return new RulesByPolicy(rules, options, { own: retry, byJob, named: defaults.retryPolicies });
}

function dependencyOf(
  checks: OptionChecks,
  option: string | KeyedDependency | undefined,
  dependencies: ProcessorDefaults['dependencies'],
): Dependency | undefined {
  if (option === undefined) return undefined;
  if (typeof option === 'object' && typeof option?.per !== 'function') {
    checks.fail('dependency', 'an object', 'the name of one, or { name, per: (operation) => key }');
    return undefined;
  }
  const { name } = typeof option === 'object' ? option : { name: option };
  const found = dependencies.find(name);
  if (found === undefined) checks.fail('dependency', name, `one of ${dependencies.names}`);
  return found;
}

/** Effect `reconciled` needs a `reconcile()`, and a `reconcile()` needs an effect that calls it. */
function checkReconcile(
  checks: OptionChecks,
  effect: Effect,
  canReconcile: boolean,
  options: ReconcileOptions | undefined,
): void {
  if (effect === 'reconciled' && !canReconcile)
    checks.fail('effect', effect, 'another one, or the class needs a method reconcile(operation) { … }');
  if (canReconcile && effect !== 'reconciled' && effect !== 'keyed')
    checks.fail(
      'effect',
      effect,
      '"reconciled" or "keyed", because only these call the reconcile() of the class',
    );
  if (options !== undefined && !canReconcile)
    checks.fail('reconcile', 'given', 'left out unless the class has a reconcile(operation) method');
}

/** Where the effect may be repeated, an earlier start does not matter. */
function doubtsEarlierStarts(
  effect: Effect,
  given: IdempotentProcessorOptions['startedElsewhere'],
  checks: OptionChecks,
): boolean {
  const startedElsewhere = checks.oneOf('startedElsewhere', given, ['doubt', 'run'], 'doubt');
  return startedElsewhere === 'doubt' && (effect === 'unrepeatable' || effect === 'reconciled');
}

/** The names of jobs that the options name. */
function jobNamesOf({ payload, retryByJob }: IdempotentProcessorOptions): readonly string[] {
  const byPayload = typeof payload === 'object' && payload !== null ? Object.keys(payload) : [];
  return [...new Set([...byPayload, ...Object.keys(retryByJob ?? {})])];
}

function payloadRules(
  { payload, unlistedPayloads }: IdempotentProcessorOptions,
  checks: OptionChecks,
): ProcessorRules['payloadRuleOf'] {
  const otherwise = checks.oneOf('unlistedPayloads', unlistedPayloads, ['refuse', 'accept'], 'refuse');
  if (payload === undefined) return () => ANY_PAYLOAD;
  if (typeof payload === 'function') return () => ({ kind: 'validated', dto: payload });
  if (payload === null || typeof payload !== 'object') {
    checks.fail('payload', payload, 'a DTO class, or an object of DTO classes by job name');
    return () => ANY_PAYLOAD;
  }
  for (const [jobName, dto] of Object.entries(payload)) {
    if (typeof dto !== 'function') {
      checks.fail(
        `payload.${jobName}`,
        dto,
        'a DTO class; an import cycle makes it undefined while decorators run',
      );
    }
  }
  const byName = new Map(
    Object.entries(payload).map(([jobName, dto]): [string, PayloadRule] => [
      jobName,
      { kind: 'validated', dto },
    ]),
  );
  const unlisted: PayloadRule = otherwise === 'accept' ? ANY_PAYLOAD : { kind: 'unlisted' };
  return (jobName) => byName.get(jobName) ?? unlisted;
}
