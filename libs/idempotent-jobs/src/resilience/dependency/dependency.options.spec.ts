import { describe, expect, it } from 'vitest';
import { optionChecks } from '../../option-checks/option-checks.js';
import { type DependencyOptions, type DependencyRules, resolveDependencies } from './dependency.options.js';

function resolve(options: unknown, name = 'gateway'): DependencyRules | undefined {
  const checks = optionChecks('forRoot()');
  const [settings] = resolveDependencies(checks, { [name]: options as DependencyOptions });
  checks.throwIfAny((message) => new Error(message));
  return settings;
}

function refusal(options: unknown, name?: string): string {
  try {
    resolve(options, name);
  } catch (error) {
    return (error as Error).message;
  }
  throw new Error('The options were accepted');
}

describe('resolveDependencies', () => {
  it('has none where none are declared', () => {
    expect(resolveDependencies(optionChecks('forRoot()'))).toEqual([]);
  });

  it('gives a dependency a circuit and a budget, and limits it by nothing else', () => {
    expect(resolve({})).toEqual({
      name: 'gateway',
      maxKeys: 1000,
      timeoutMs: undefined,
      maxConcurrent: undefined,
      clientRetries: undefined,
      classify: undefined,
      breaker: {},
      retryBudget: {},
    });
  });

  it('takes everything that is given', () => {
    const given = {
      timeoutMs: 700,
      maxConcurrent: 3,
      maxKeys: 50,
      clientRetries: 0,
      classify: () => undefined,
      breaker: {
        windowMs: 10_000,
        minimumCalls: 5,
        failureShare: 1,
        openMs: 100,
        maxOpenMs: 900,
        successes: 1,
      },
      retryBudget: { ratio: 0, minPerSecond: 0, windowMs: 5_000 },
    };
    expect(resolve(given)).toEqual({ name: 'gateway', ...given });
  });

  it('has no circuit and no budget where these are false', () => {
    expect(resolve({ breaker: false, retryBudget: false })).toMatchObject({
      breaker: undefined,
      retryBudget: undefined,
    });
  });

  it('keeps the order and the names of several', () => {
    const settings = resolveDependencies(optionChecks('forRoot()'), { gateway: {}, 'mail-server.eu_1': {} });
    expect(settings.map(({ name }) => name)).toEqual(['gateway', 'mail-server.eu_1']);
  });

  it.each([
    ['', ''],
    ['with a space', 'my gateway'],
    ['with a slash', 'a/b'],
    ['too long', 'g'.repeat(51)],
  ])('refuses a name that is no label: %s', (_what, name) => {
    expect(refusal({}, name)).toContain(
      `dependencies is ${JSON.stringify(name)}, but must be named with 1 to 50 letters, digits, "_", "." and "-"`,
    );
  });

  it.each([
    [{ timeoutMs: 0 }, 'timeoutMs is 0, but must be a number of milliseconds from 1 to 2147483647'],
    [{ timeoutMs: Infinity }, 'timeoutMs is Infinity, but must be a number of milliseconds from 1'],
    [{ timeoutMs: '700' }, 'timeoutMs is "700", but must be a number of milliseconds from 1'],
    [{ maxConcurrent: 0 }, 'maxConcurrent is 0, but must be a whole number greater than 0'],
    [{ maxConcurrent: 1.5 }, 'maxConcurrent is 1.5, but must be a whole number greater than 0'],
    [{ maxConcurrent: Infinity }, 'maxConcurrent is Infinity, but must be a whole number greater than 0'],
    [{ clientRetries: -1 }, 'clientRetries is -1, but must be a whole number of at least 0'],
    [{ classify: 'transient' }, 'classify is "transient", but must be a function'],
    [{ breaker: { windowMs: 0 } }, 'breaker.windowMs is 0, but must be a number greater than 0'],
    [
      { breaker: { minimumCalls: 0 } },
      'breaker.minimumCalls is 0, but must be a whole number greater than 0',
    ],
    [
      { breaker: { minimumCalls: 2.5 } },
      'breaker.minimumCalls is 2.5, but must be a whole number greater than 0',
    ],
    [{ breaker: { failureShare: 0 } }, 'breaker.failureShare is 0, but must be a number greater than 0'],
    [
      { breaker: { failureShare: 50 } },
      'breaker.failureShare is 50, but must be a share of all calls, at most 1',
    ],
    [{ breaker: { openMs: -1 } }, 'breaker.openMs is -1, but must be a number greater than 0'],
    [{ breaker: { maxOpenMs: NaN } }, 'breaker.maxOpenMs is NaN, but must be a number greater than 0'],
    [{ breaker: { successes: 0 } }, 'breaker.successes is 0, but must be a whole number greater than 0'],
    [{ retryBudget: { ratio: -0.1 } }, 'retryBudget.ratio is -0.1, but must be a number of at least 0'],
    [{ retryBudget: { ratio: '10%' } }, 'retryBudget.ratio is "10%", but must be a number of at least 0'],
    [
      { retryBudget: { minPerSecond: -1 } },
      'retryBudget.minPerSecond is -1, but must be a number of at least 0',
    ],
    [{ retryBudget: { windowMs: 0 } }, 'retryBudget.windowMs is 0, but must be a number greater than 0'],
  ])('names what is wrong, its value and the fix: %o', (options, problem) => {
    expect(refusal(options)).toContain(`forRoot(): dependencies.gateway.${problem}`);
  });

  it('tells everything that is wrong at once', () => {
    const message = refusal({
      timeoutMs: 0,
      breaker: { openMs: 0, successes: 0 },
      retryBudget: { ratio: -1 },
    });
    expect(message.split('; ')).toHaveLength(4);
  });

  it('does not check what is switched off', () => {
    expect(() => resolve({ breaker: false, retryBudget: false, timeoutMs: 1 })).not.toThrow();
  });
});
