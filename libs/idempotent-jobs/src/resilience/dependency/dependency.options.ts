import type { OptionChecks } from '../../option-checks/option-checks.js';
import type { CircuitBreakerOptions } from '../circuit-breaker.options.js';
import type { Classify } from '../classify/classify.js';
import type { RetryBudgetOptions } from '../retry-budget.js';

/** A service, a database, a mail server: anything that handlers call and that may fail. */
export interface DependencyOptions {
  /**
   * How long a call may take, in ms. Default for `DependencyGuard.call()`: 30,000. An attempt of a processor with this
   * `dependency` also ends after this time, if it is given, or after the processor's own `timeoutMs`, if that is shorter.
   */
  readonly timeoutMs?: number;
  /** When its circuit opens and closes. False: it never opens by itself. */
  readonly breaker?: DependencyBreakerOptions | false;
  /** How many retries it gets. False: retries are not limited. */
  readonly retryBudget?: DependencyBudgetOptions | false;
  /** How many calls of it may run at once in this process. Default: any number. */
  readonly maxConcurrent?: number;
  /**
   * For how many keys (`per`) this process remembers a circuit and a retry budget. Beyond that, the key that was unused
   * for longest is forgotten, closed and idle ones first. Default: 1,000.
   */
  readonly maxKeys?: number;
  /**
   * How often its HTTP client or SDK retries a call by itself; 0 for not at all. It changes nothing, but lets the doctor
   * multiply attempts. Default: not declared.
   */
  readonly clientRetries?: number;
  /**
   * Classifies its errors before the built-in rules, and after a processor's own `classify`. Undefined leaves an error to
   * the next rule.
   */
  readonly classify?: Classify;
}

/** {@link CircuitBreakerOptions} without those that the library sets. */
export type DependencyBreakerOptions = Pick<
  CircuitBreakerOptions,
  'windowMs' | 'minimumCalls' | 'failureShare' | 'openMs' | 'maxOpenMs' | 'successes'
>;

/** {@link RetryBudgetOptions} without those that the library sets. */
export type DependencyBudgetOptions = Pick<RetryBudgetOptions, 'ratio' | 'minPerSecond' | 'windowMs'>;

/** A dependency's options, checked and with defaults. */
export interface DependencyRules extends Pick<
  DependencyOptions,
  'timeoutMs' | 'maxConcurrent' | 'clientRetries' | 'classify'
> {
  readonly name: string;
  readonly maxKeys: number;
  /** Undefined when it has none. */
  readonly breaker: DependencyBreakerOptions | undefined;
  /** Undefined when it has none. */
  readonly retryBudget: DependencyBudgetOptions | undefined;
}

/** Checks every dependency of `forRoot({ dependencies })`. */
export function resolveDependencies(
  checks: OptionChecks,
  dependencies: Readonly<Record<string, DependencyOptions>> = {},
): readonly DependencyRules[] {
  return Object.entries(dependencies).map(([name, options]) => resolve(checks, name, options));
}

function resolve(checks: OptionChecks, name: string, options: DependencyOptions): DependencyRules {
  const path = `dependencies.${name}`;
  const { timeoutMs, breaker = {}, retryBudget = {}, maxConcurrent, clientRetries, classify } = options;
  if (!/^[\w.-]{1,50}$/.test(name))
    checks.fail(
      'dependencies',
      name,
      'named with 1 to 50 letters, digits, "_", "." and "-": it is a label of metrics',
    );
  if (timeoutMs !== undefined) checks.timer(`${path}.timeoutMs`, timeoutMs, 0);
  if (maxConcurrent !== undefined) checks.count(`${path}.maxConcurrent`, maxConcurrent, 1);
  if (clientRetries !== undefined) checks.countFromZero(`${path}.clientRetries`, clientRetries, 0);
  checks.callback(`${path}.classify`, classify);
  if (breaker !== false) checkBreaker(checks, `${path}.breaker`, breaker);
  if (retryBudget !== false) checkBudget(checks, `${path}.retryBudget`, retryBudget);
  return {
    name,
    timeoutMs,
    maxConcurrent,
    maxKeys: checks.count(`${path}.maxKeys`, options.maxKeys, DEFAULT_MAX_KEYS),
    clientRetries,
    classify,
    breaker: breaker === false ? undefined : breaker,
    retryBudget: retryBudget === false ? undefined : retryBudget,
  };
}

/** A key takes about a kilobyte. */
const DEFAULT_MAX_KEYS = 1_000;

function checkBreaker(checks: OptionChecks, path: string, options: DependencyBreakerOptions): void {
  const { failureShare } = options;
  checks.positive(`${path}.windowMs`, options.windowMs, 1);
  checks.count(`${path}.minimumCalls`, options.minimumCalls, 1);
  checks.positive(`${path}.failureShare`, failureShare, 1);
  if (failureShare !== undefined && failureShare > 1)
    checks.fail(`${path}.failureShare`, failureShare, 'a share of all calls, at most 1');
  checks.positive(`${path}.openMs`, options.openMs, 1);
  checks.positive(`${path}.maxOpenMs`, options.maxOpenMs, 1);
  checks.count(`${path}.successes`, options.successes, 1);
}

function checkBudget(checks: OptionChecks, path: string, options: DependencyBudgetOptions): void {
  checks.atLeast(`${path}.ratio`, options.ratio, 0, 0);
  checks.atLeast(`${path}.minPerSecond`, options.minPerSecond, 0, 0);
  const { minPerSecond = 1, windowMs = 10_000 } = options;
  const floor = (minPerSecond * windowMs) / 1000;
  if (floor > 0 && floor < 1)
    checks.fail(
      `${path}.minPerSecond`,
      minPerSecond,
      `0, or at least ${1000 / windowMs}: in a window of ${windowMs} ms there would be less than one retry, and so none`,
    );
  checks.positive(`${path}.windowMs`, options.windowMs, 1);
}
