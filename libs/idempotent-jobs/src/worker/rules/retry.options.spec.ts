import { describe, expect, it } from 'vitest';
import { type OptionChecks, optionChecks } from '../../option-checks/option-checks.js';
import { policyOf, resolvePolicies, resolveRetry, type RetryOptions } from './retry.options.js';

/** What comes of options that must be right. */
function accepted<T>(resolve: (checks: OptionChecks) => T): T {
  const checks = optionChecks('forRoot()');
  const settings = resolve(checks);
  checks.throwIfAny((message) => new Error(message));
  return settings;
}

function refusal(resolve: (checks: OptionChecks) => unknown): string {
  try {
    accepted(resolve);
  } catch (error) {
    return (error as Error).message;
  }
  throw new Error('The options were accepted');
}

const DEFAULTS = {
  attempts: 5,
  timeoutMs: undefined,
  budgetMs: undefined,
  backoff: { baseMs: 1_000, capMs: 300_000 },
  crashes: 2,
};

describe('resolveRetry', () => {
  it('fills in the documented defaults', () => {
    expect(accepted((checks) => resolveRetry(checks, 'retry'))).toEqual(DEFAULTS);
    expect(accepted((checks) => resolveRetry(checks, 'retry', {}))).toEqual(DEFAULTS);
  });

  it('takes everything that is given', () => {
    const options: RetryOptions = {
      attempts: 1,
      timeoutMs: 250,
      timeBudgetMs: 0.5,
      crashes: 1,
      backoff: { baseMs: 10, capMs: 20, jitter: 'equal', throttledBaseMs: 30 },
    };
    expect(accepted((checks) => resolveRetry(checks, 'retry', options))).toEqual({
      attempts: 1,
      timeoutMs: 250,
      budgetMs: 0.5,
      crashes: 1,
      backoff: { baseMs: 10, capMs: 20, jitter: 'equal', throttledBaseMs: 30 },
    });
  });

  it.each(['full', 'equal', 'decorrelated'] as const)('takes %s jitter', (jitter) => {
    const { backoff } = accepted((checks) => resolveRetry(checks, 'retry', { backoff: { jitter } }));
    expect(backoff).toEqual({ ...DEFAULTS.backoff, jitter });
  });

  it.each([
    [{ attempts: 0 }, 'attempts is 0, but must be a whole number greater than 0'],
    [{ attempts: Infinity }, 'attempts is Infinity, but must be a whole number greater than 0'],
    [{ attempts: '5' }, 'attempts is "5", but must be a whole number greater than 0'],
    [{ timeoutMs: 0 }, 'timeoutMs is 0, but must be a number of milliseconds from 1 to 2147483647'],
    [{ timeBudgetMs: 0 }, 'timeBudgetMs is 0, but must be a number greater than 0'],
    [{ timeBudgetMs: Infinity }, 'timeBudgetMs is Infinity, but must be a number greater than 0'],
    [{ crashes: 0 }, 'crashes is 0, but must be a whole number greater than 0'],
    [{ backoff: { baseMs: 0 } }, 'backoff.baseMs is 0, but must be a number greater than 0'],
    [{ backoff: { capMs: -1 } }, 'backoff.capMs is -1, but must be a number greater than 0'],
    [
      { backoff: { throttledBaseMs: 0 } },
      'backoff.throttledBaseMs is 0, but must be a number greater than 0',
    ],
    [
      { backoff: { jitter: 'none' } },
      'backoff.jitter is "none", but must be "full" or "equal" or "decorrelated"',
    ],
  ])('names what is wrong, its value and the fix: %o', (options, problem) => {
    expect(refusal((checks) => resolveRetry(checks, 'retry', options as RetryOptions))).toBe(
      `forRoot(): retry.${problem}${problem.includes('milliseconds') ? ' (24.8 days)' : ''}.`,
    );
  });
});

describe('resolvePolicies', () => {
  it('has none where none are declared', () => {
    expect(accepted((checks) => resolvePolicies(checks))).toEqual(new Map());
  });

  it('fills in each one, and names a wrong option by its policy', () => {
    const policies = accepted((checks) => resolvePolicies(checks, { charge: { attempts: 3 }, mail: {} }));
    expect([...policies]).toEqual([
      ['charge', { ...DEFAULTS, attempts: 3 }],
      ['mail', DEFAULTS],
    ]);
    const message = refusal((checks) =>
      resolvePolicies(checks, { charge: { attempts: 0 }, mail: { backoff: { capMs: 0 } } }),
    );
    expect(message).toContain('retryPolicies.charge.attempts is 0');
    expect(message).toContain('retryPolicies.mail.backoff.capMs is 0');
  });
});

describe('policyOf', () => {
  const policies = accepted((checks) => resolvePolicies(checks, { charge: { attempts: 3 }, mail: {} }));

  it('is the policy of that name, the one that is described, or the default', () => {
    const of = (asked: string | RetryOptions | undefined) =>
      accepted((checks) => policyOf(checks, 'retry', asked, policies));
    expect(of('charge')).toBe(policies.get('charge'));
    expect(of({ attempts: 9 })).toEqual({ ...DEFAULTS, attempts: 9 });
    expect(of(undefined)).toEqual(DEFAULTS);
  });

  it('refuses a name that there is not, and says which there are', () => {
    expect(refusal((checks) => policyOf(checks, 'retryByJob.refund', 'chrage', policies))).toBe(
      'forRoot(): retryByJob.refund is "chrage", but must be one of forRoot({ retryPolicies }): charge, mail.',
    );
    expect(refusal((checks) => policyOf(checks, 'retry', 'charge', new Map()))).toBe(
      'forRoot(): retry is "charge", but must be one of forRoot({ retryPolicies }): there are none.',
    );
  });
});
