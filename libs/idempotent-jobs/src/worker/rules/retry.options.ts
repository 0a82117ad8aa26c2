import type { OptionChecks } from '../../option-checks/option-checks.js';
import type { BackoffOptions } from '../../resilience/backoff.js';

/** How often and how long to try: a retry policy. */
export interface RetryOptions {
  /** Attempts in all, the first included. Default 5. */
  readonly attempts?: number;
  /** How long one attempt may take, in ms. Default 30,000. A processor's own `timeoutMs` takes precedence. */
  readonly timeoutMs?: number;
  /**
   * How long all attempts together may take, in ms from the first. Default: no limit. A processor's own `timeBudgetMs`
   * takes precedence, and an operation's own `deadline` over both.
   */
  readonly timeBudgetMs?: number;
  /** How long to wait between attempts. Default: base 1 s, cap 5 min, full jitter. */
  readonly backoff?: Partial<BackoffOptions>;
  /** After how many attempts that vanished with their worker the operation is given up as `crash_loop`. Default 2. */
  readonly crashes?: number;
}

/** Policies by name: `forRoot({ retryPolicies: { charge: { … }, mail: { … } } })`. */
export type RetryPolicies = Readonly<Record<string, RetryOptions>>;

/** A policy with all defaults filled in, except those that a processor may give. */
export interface RetryRules {
  readonly attempts: number;
  readonly timeoutMs: number | undefined;
  readonly budgetMs: number | undefined;
  readonly backoff: BackoffOptions;
  readonly crashes: number;
}

/** One dead worker may be an accident; the second is the job's fault. */
const DEFAULT_CRASHES = 2;

/** Fills in the defaults. `path` is how error messages name the options, e.g. `retry`. */
export function resolveRetry(checks: OptionChecks, path: string, options: RetryOptions = {}): RetryRules {
  const { attempts, timeoutMs, timeBudgetMs, backoff, crashes } = options;
  return {
    attempts: checks.count(`${path}.attempts`, attempts, 5),
    timeoutMs: timeoutMs === undefined ? undefined : checks.timer(`${path}.timeoutMs`, timeoutMs, 0),
    budgetMs: timeBudgetMs === undefined ? undefined : budgetOf(checks, `${path}.timeBudgetMs`, timeBudgetMs),
    backoff: resolveBackoff(checks, `${path}.backoff`, backoff),
    crashes: checks.count(`${path}.crashes`, crashes, DEFAULT_CRASHES),
  };
}

/** Checks a time budget, in ms. */
export function budgetOf(checks: OptionChecks, option: string, value: number): number {
  const budgetMs = checks.positive(option, value, 0);
  if (Number.isFinite(budgetMs) && budgetMs > MAX_BUDGET_MS)
    checks.fail(option, value, `at most ten years, ${MAX_BUDGET_MS} ms; left out: no limit`);
  return budgetMs;
}

/** Much longer budgets are beyond the dates of Postgres. */
const MAX_BUDGET_MS = 10 * 365 * 24 * 60 * 60 * 1000;

/** A longer wait makes no sense, and the wait has to fit into a column. */
const MAX_WAIT_MS = 30 * 24 * 60 * 60 * 1000;

/** Checks every policy of `forRoot({ retryPolicies })`. */
export function resolvePolicies(
  checks: OptionChecks,
  policies: RetryPolicies = {},
): ReadonlyMap<string, RetryRules> {
  return new Map(
    Object.entries(policies).map(([name, options]) => [
      name,
      resolveRetry(checks, `retryPolicies.${name}`, options),
    ]),
  );
}

/** The policy of that name, or the one that the options describe. */
export function policyOf(
  checks: OptionChecks,
  path: string,
  asked: string | RetryOptions | undefined,
  policies: ReadonlyMap<string, RetryRules>,
): RetryRules {
  if (typeof asked !== 'string') return resolveRetry(checks, path, asked);
  const named = policies.get(asked);
  if (named === undefined)
    checks.fail(
      path,
      asked,
      `one of forRoot({ retryPolicies }): ${[...policies.keys()].join(', ') || 'there are none'}`,
    );
  return named ?? resolveRetry(checks, path);
}

function resolveBackoff(
  checks: OptionChecks,
  path: string,
  { baseMs, capMs, jitter, throttledBaseMs }: Partial<BackoffOptions> = {},
): BackoffOptions {
  checks.oneOf(`${path}.jitter`, jitter, ['full', 'equal', 'decorrelated'], 'full');
  if (throttledBaseMs !== undefined) checks.positive(`${path}.throttledBaseMs`, throttledBaseMs, 0);
  for (const [name, ms] of Object.entries({ baseMs, capMs, throttledBaseMs }))
    if (ms !== undefined && ms > MAX_WAIT_MS)
      checks.fail(`${path}.${name}`, ms, `at most 30 days, ${MAX_WAIT_MS} ms`);
  return {
    baseMs: checks.positive(`${path}.baseMs`, baseMs, 1000),
    capMs: checks.positive(`${path}.capMs`, capMs, 5 * 60 * 1000),
    ...(jitter !== undefined && { jitter }),
    ...(throttledBaseMs !== undefined && { throttledBaseMs }),
  };
}
