import type { OperationRules } from './operation-rules.js';
import { DEFAULT_KEY_RETENTION_MS, type Effect, EFFECTS, repeatableForMs } from '../../operation/effect.js';
import { UsageError } from '../../operation/errors.js';
import { optionChecks } from '../../option-checks/option-checks.js';
import { type ReconcileOptions, resolveReconcile } from './reconcile.options.js';

/** How a step is run. */
export interface StepOptions {
  /** What kind of side effect the step has. Default `unrepeatable`; with a `reconcile`, `reconciled`. */
  readonly effect?: Effect;
  /** How long one try may take, in ms. Default: the processor's `timeoutMs`. */
  readonly timeoutMs?: number;
  /** For `keyed`: how long the service remembers a key, in ms from the first try. Default 24 h. */
  readonly keyRetentionMs?: number;
  /** For steps with a `reconcile`: when and how the service is asked. */
  readonly reconcile?: ReconcileOptions;
}

/** Options are mostly written in code. Options made from data, beyond this number, share no statements. */
const MAX_KNOWN = 1000;

/**
 * By the handler's policy, then by the step's options: claims under the same rules share statements. There is one policy
 * for each of a processor's rules, and it stays the same where they are copied for a dependency's key.
 */
const known = new WeakMap<OperationRules['policy'], Map<string, OperationRules>>();

/** A step's rules: its own effect and timeout, everything else as its handler's. @throws UsageError for invalid options */
export function rulesOfStep(
  name: string,
  handler: OperationRules,
  options: StepOptions,
  canReconcile: boolean,
): OperationRules {
  const rules = known.get(handler.policy) ?? new Map<string, OperationRules>();
  known.set(handler.policy, rules);
  const key = JSON.stringify([options, canReconcile]);
  let found = rules.get(key);
  if (found === undefined) {
    found = resolve(name, handler, options, canReconcile);
    if (rules.size < MAX_KNOWN) rules.set(key, found);
  }
  return found;
}

function resolve(
  name: string,
  handler: OperationRules,
  options: StepOptions,
  canReconcile: boolean,
): OperationRules {
  const checks = optionChecks(`Step "${name}"`);
  const effect = options.effect ?? (canReconcile ? 'reconciled' : 'unrepeatable');
  if (!EFFECTS.includes(effect)) checks.fail('effect', effect, `one of ${EFFECTS.join(', ')}`);
  if (handler.effect === 'unrepeatable')
    checks.fail(
      'the effect of its handler',
      handler.effect,
      '"natural", where all effects are in steps: an unrepeatable handler is not run again, and could not resume',
    );
  if ((effect === 'reconciled') !== canReconcile && effect !== 'keyed')
    checks.fail('effect', effect, '"reconciled" with, and only with, { run, reconcile }');
  const reconcile = canReconcile ? resolveReconcile(checks, options.reconcile) : undefined;
  const keyRetentionMs = checks.positive('keyRetentionMs', options.keyRetentionMs, DEFAULT_KEY_RETENTION_MS);
  const timeoutMs = checks.timer('timeoutMs', options.timeoutMs, handler.timeoutMs);
  checks.throwIfAny((message) => new UsageError(message));
  return {
    ...handler,
    effect,
    timeoutMs,
    isOptimistic: false,
    claim: {
      ...handler.claim,
      origin: handler.claim.origin === 'job' ? 'step' : handler.claim.origin,
      effect,
      repeatableMs: repeatableForMs(effect, keyRetentionMs),
      budgetMs: null,
      canReconcile,
    },
    // The handler's own result rules are for what the handler returns.
    results: { ...handler.results, isStored: true, redact: undefined },
    policy: { ...handler.policy, schedule: reconcile?.schedule, isCallers: true },
    reconcile,
    // The handler has passed the dependency already.
    dependency: undefined,
  };
}
