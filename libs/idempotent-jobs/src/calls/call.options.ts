import { type ReconcileOptions, resolveReconcile } from '../worker/rules/reconcile.options.js';
import type { CurrentOperation } from '../worker/attempt/current-operation.js';
import {
  DEFAULT_KEY_RETENTION_MS,
  type Effect,
  EFFECTS,
  type Reconciliation,
  repeatableForMs,
} from '../operation/effect.js';
import { UsageError } from '../operation/errors.js';
import { optionChecks } from '../option-checks/option-checks.js';
import { CALLS } from '../operation/origin.js';
import type { OperationRules } from '../worker/rules/operation-rules.js';
import { type Classify, inOrder } from '../resilience/classify/classify.js';

/** How a call is guarded. */
export interface CallOptions {
  /** What kind of side effect it has. Default `unrepeatable`; with `reconcile`, `reconciled`. */
  readonly effect?: Effect;
  /** How long the call may take, in ms. Default 30,000. */
  readonly timeoutMs?: number;
  /** How long to wait for another caller with the same key, in ms. Default 10,000; 0 for not at all. */
  readonly waitMs?: number;
  /** For `keyed`: how long the service remembers a key, in ms from the first call. Default 24 h. */
  readonly keyRetentionMs?: number;
  /** Finds out whether the effect of the last call under this key happened. Called before another call is made. */
  readonly reconcile?: (operation: CurrentOperation) => Promise<Reconciliation> | Reconciliation;
  /** When and how the service is asked. */
  readonly reconcileOptions?: ReconcileOptions;
  /** The request, as JSON: the same key with another input is a conflict. Default: the key alone identifies the request. */
  readonly input?: unknown;
  /** Default: the tenant of the surrounding frame. Another tenant than the surrounding frame's is an error. */
  readonly tenantId?: string;
  /** Classifies an error before the built-in rules; undefined leaves it to them. */
  readonly classify?: Classify;
  /** As a processor's: if false, no result is kept and no caller gets one. Default true. */
  readonly storeResult?: boolean;
  /** As a processor's: gives what to keep in place of the result; all callers get that. */
  readonly redact?: (result: any) => unknown;
}

/** The application's options that calls use. */
export interface CallDefaults {
  readonly leaseMs: number;
  readonly retention: { readonly completedMs: number };
  readonly results: { readonly maxBytes: number };
}

/**
 * @param knownFailureOf recognises errors of guarded calls, which are classified already
 * @throws UsageError naming each option that is wrong, its value and the fix
 */
export function resolveCallOptions(
  options: CallOptions,
  { leaseMs, retention, results }: CallDefaults,
  knownFailureOf: Classify | undefined,
): OperationRules {
  const retentionMs = retention.completedMs;
  const checks = optionChecks('once()');
  const canReconcile = options.reconcile !== undefined;
  const effect = options.effect ?? (canReconcile ? 'reconciled' : 'unrepeatable');
  if (!EFFECTS.includes(effect)) checks.fail('effect', effect, `one of ${EFFECTS.join(', ')}`);
  if ((effect === 'reconciled') !== canReconcile && effect !== 'keyed')
    checks.fail('effect', effect, '"reconciled" with, and only with, a reconcile function');
  for (const name of ['reconcile', 'classify', 'redact'] as const) checks.callback(name, options[name]);
  const keyRetentionMs = checks.positive('keyRetentionMs', options.keyRetentionMs, DEFAULT_KEY_RETENTION_MS);
  if (effect === 'keyed' && keyRetentionMs > retentionMs)
    checks.fail('keyRetentionMs', keyRetentionMs, `no longer than retention.completedMs, ${retentionMs}`);
  checks.timer('waitMs', options.waitMs, DEFAULT_WAIT_MS, 0);
  const reconcile = canReconcile
    ? resolveReconcile(checks, options.reconcileOptions, 'reconcileOptions')
    : undefined;
  const rules: OperationRules = {
    effect,
    timeoutMs: checks.timer('timeoutMs', options.timeoutMs, 30_000),
    isOptimistic: false,
    claim: {
      queue: CALLS,
      origin: 'call',
      effect,
      leaseMs,
      repeatableMs: repeatableForMs(effect, keyRetentionMs),
      retentionMs,
      budgetMs: null,
      canReconcile,
    },
    policy: {
      attempts: Infinity,
      crashes: Infinity,
      backoff: { baseMs: 1, capMs: 1 },
      schedule: reconcile?.schedule,
      isCallers: true,
    },
    reconcile,
    dependency: undefined,
    results: {
      isStored: checks.flag('storeResult', options.storeResult, true),
      redact: options.redact,
      maxBytes: results.maxBytes,
    },
    classify: inOrder(options.classify, knownFailureOf),
  };
  checks.throwIfAny((message) => new UsageError(message));
  return rules;
}

/** About as long as a person waits for an answer. */
export const DEFAULT_WAIT_MS = 10_000;
