import { DEFAULT_KEY_RETENTION_MS, type Effect, EFFECTS, repeatableForMs } from '../operation/effect.js';
import { ConfigurationError } from '../operation/errors.js';
import type { BackoffOptions } from '../resilience/backoff.js';
import type { Classify } from '../resilience/classify.js';
import { type OptionChecks, optionChecks } from '../option-checks.js';
import { type ReconcileOptions, resolveReconcile } from '../reconcile/reconcile.options.js';
import type { ProcessorDeclaration } from './idempotent-processor.decorator.js';
import type { Identify } from './identify.js';
import type { ProcessorSettings } from './processor.settings.js';
import type { PayloadClass } from './validate-payload.js';

/** One death may be anybody's fault; the second is the job's. */
export const DEFAULT_CRASHES = 2;

/** How often and how long to try. */
export interface RetryOptions {
  /** Attempts in all, the first included. Default 5. */
  readonly attempts?: number;
  /** Exponential backoff with full jitter. Default: base 1 s, cap 5 min. */
  readonly backoff?: Partial<BackoffOptions>;
  /** After how many attempts that vanished with their worker the operation is given up as `crash_loop`. Default 2. */
  readonly crashes?: number;
}

/** What `@IdempotentProcessor()` needs to know about a processor. */
export interface IdempotentProcessorOptions {
  /** What kind of side effect the handler has. Default `unrepeatable`, the careful one. */
  readonly effect?: Effect;
  /** For `keyed`: how long the service remembers a key, in ms from the first attempt. Default 24 h. */
  readonly keyRetentionMs?: number;
  /** For `reconciled`, and for `keyed` with a `reconcile()`: when and how the service is asked about a doubt. */
  readonly reconcile?: ReconcileOptions;
  /** The class-validator DTO of the payload, or one per job name. Without it payloads are not validated. */
  readonly payload?: PayloadClass | Readonly<Record<string, PayloadClass>>;
  /** How long an attempt may take, in ms. Default 30,000. */
  readonly timeoutMs?: number;
  /** How long all attempts together may take, in ms from the first. Default: no limit. */
  readonly timeBudgetMs?: number;
  readonly retry?: RetryOptions;
  /**
   * How often the HTTP client or SDK that the handler calls retries a call by itself; 0: not at all. Changes nothing,
   * but lets the doctor multiply. Default: not declared.
   */
  readonly clientRetries?: number;
  /** How long a vanished worker keeps its claim, in ms; renewed at a third. Default: the module's `leaseMs`. */
  readonly leaseMs?: number;
  /**
   * Whether what the handler returns is kept, and replayed to whoever asks again. False: nobody is given anything, at the
   * first run as little as later. Default true.
   */
  readonly storeResult?: boolean;
  /**
   * What to keep of a result in its place, e.g. without what is secret; the first run's callers are given the same.
   * Synchronous. When it throws, nothing is kept, and the operation completes all the same.
   */
  readonly redact?: (result: any) => unknown;
  /** For producers that write plain data: who the operation of a job is. */
  readonly identify?: Identify;
  /** Looks at an error before the built-in rules; undefined leaves it to them. */
  readonly classify?: Classify;
}

/** Fills in the defaults. @throws ConfigurationError naming each option that is wrong, its value and the fix */
export function resolveProcessorOptions(
  className: string,
  { queue, options, canReconcile }: Pick<ProcessorDeclaration, 'queue' | 'options' | 'canReconcile'>,
  defaults: { readonly leaseMs: number; readonly retentionMs: number; readonly maxResultBytes: number },
): ProcessorSettings {
  const checks = optionChecks(`@IdempotentProcessor("${queue}") on ${className}`);
  const effect = options.effect ?? 'unrepeatable';
  if (!EFFECTS.includes(effect)) {
    checks.fail('effect', effect, `one of ${EFFECTS.map((known) => `"${known}"`).join(', ')}`);
  }
  if (options.keyRetentionMs !== undefined && effect !== 'keyed') {
    checks.fail('keyRetentionMs', options.keyRetentionMs, 'left out unless effect is "keyed"');
  }
  checkReconcile(checks, effect, canReconcile, options.reconcile);
  const reconcile = canReconcile ? resolveReconcile(checks, options.reconcile) : undefined;
  const baseMs = checks.positive('retry.backoff.baseMs', options.retry?.backoff?.baseMs, 1000);
  const capMs = checks.positive('retry.backoff.capMs', options.retry?.backoff?.capMs, 5 * 60 * 1000);
  const leaseMs = checks.timer('leaseMs', options.leaseMs, defaults.leaseMs, 500);
  const keyRetentionMs = checks.positive('keyRetentionMs', options.keyRetentionMs, DEFAULT_KEY_RETENTION_MS);
  const budgetMs =
    options.timeBudgetMs === undefined ? null : checks.positive('timeBudgetMs', options.timeBudgetMs, 0);
  const settings: ProcessorSettings = {
    queue,
    effect,
    leaseMs,
    timeoutMs: checks.timer('timeoutMs', options.timeoutMs, 30_000),
    terms: {
      queue,
      effect,
      leaseMs,
      repeatableMs: repeatableForMs(effect, keyRetentionMs),
      budgetMs,
      retentionMs: defaults.retentionMs,
      asks: canReconcile,
    },
    policy: {
      attempts: checks.count('retry.attempts', options.retry?.attempts, 5),
      crashes: checks.count('retry.crashes', options.retry?.crashes, DEFAULT_CRASHES),
      backoff: { baseMs, capMs },
      plan: reconcile?.plan,
      isCallers: false,
    },
    reconcile,
    results: {
      isStored: checks.flag('storeResult', options.storeResult, true),
      redact: options.redact,
      maxBytes: defaults.maxResultBytes,
    },
    identify: options.identify,
    classify: options.classify,
    jobNames: isByName(options.payload) ? Object.keys(options.payload) : [],
    payloadClassOf: payloadClasses(options.payload, checks),
  };
  checks.countFromZero('clientRetries', options.clientRetries, 0);
  checks.callback('redact', options.redact);
  checks.callback('identify', options.identify);
  checks.callback('classify', options.classify);
  checks.throwIfAny((message) => new ConfigurationError(message));
  return settings;
}

/** An effect that is asked about needs somebody to ask, and whoever can ask is not left unasked. */
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

function isByName(
  payload: IdempotentProcessorOptions['payload'],
): payload is Readonly<Record<string, PayloadClass>> {
  return typeof payload === 'object' && payload !== null;
}

function payloadClasses(
  payload: IdempotentProcessorOptions['payload'],
  checks: OptionChecks,
): ProcessorSettings['payloadClassOf'] {
  if (payload === undefined) return () => undefined;
  if (typeof payload === 'function') return () => payload;
  if (payload === null || typeof payload !== 'object') {
    checks.fail('payload', payload, 'a DTO class, or an object of DTO classes by job name');
    return () => undefined;
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
  const byName = new Map(Object.entries(payload));
  return (jobName) => byName.get(jobName);
}
