import { describe, expect, it } from 'vitest';
import { type OptionChecks, optionChecks } from './option-checks.js';

function messageOf(check: (checks: OptionChecks) => void): string | undefined {
  const checks = optionChecks('@Thing()');
  check(checks);
  try {
    checks.throwIfAny((message) => new Error(message));
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

type Kind = 'positive' | 'count' | 'at least 500' | 'at least 0' | 'timer' | 'timer from 500';

function check(kind: Kind, checks: OptionChecks, value: unknown): number {
  const given = value as number | undefined;
  switch (kind) {
    case 'positive':
      return checks.positive('size', given, 42);
    case 'count':
      return checks.count('size', given, 42);
    case 'at least 500':
      return checks.atLeast('size', given, 42, 500);
    case 'at least 0':
      return checks.atLeast('size', given, 42, 0);
    case 'timer':
      return checks.timer('size', given, 42);
    case 'timer from 500':
      return checks.timer('size', given, 42, 500);
    default:
      return kind satisfies never;
  }
}

const ALL: Kind[] = ['positive', 'count', 'at least 500', 'at least 0', 'timer', 'timer from 500'];

describe('optionChecks', () => {
  it.each(ALL)('%s: takes the default, unchecked, for what was left out', (kind) => {
    const checks = optionChecks('@Thing()');
    expect(check(kind, checks, undefined)).toBe(42);
    expect(() => checks.throwIfAny((message) => new Error(message))).not.toThrow();
  });

  it.each<[Kind, number]>([
    ['positive', 0.001],
    ['positive', 1e12],
    ['count', 1],
    ['count', 1_000],
    ['at least 500', 500],
    ['at least 500', 500.5],
    ['at least 0', 0],
    ['timer', 1],
    ['timer', 1.5],
    ['timer', 2_147_483_647],
    ['timer from 500', 500],
  ])('%s: returns %d', (kind, value) => {
    expect(messageOf((checks) => expect(check(kind, checks, value)).toBe(value))).toBeUndefined();
  });

  it.each<[Kind, unknown, string]>([
    ['positive', 0, 'size is 0, but must be a number greater than 0'],
    ['positive', -1, 'size is -1, but must be a number greater than 0'],
    ['positive', NaN, 'size is NaN, but must be a number greater than 0'],
    ['positive', Infinity, 'size is Infinity, but must be a number greater than 0'],
    ['positive', '5', 'size is "5", but must be a number greater than 0'],
    ['positive', null, 'size is null, but must be a number greater than 0'],
    ['count', 0, 'size is 0, but must be a whole number greater than 0'],
    ['count', 1.5, 'size is 1.5, but must be a whole number greater than 0'],
    ['count', true, 'size is true, but must be a whole number greater than 0'],
    ['count', [3], 'size is 3, but must be a whole number greater than 0'],
    ['at least 500', 499, 'size is 499, but must be a number of at least 500'],
    ['at least 500', 5n, 'size is 5, but must be a number of at least 500'],
    ['at least 500', Symbol('x'), 'size is Symbol(x), but must be a number of at least 500'],
    ['at least 0', -0.1, 'size is -0.1, but must be a number of at least 0'],
    ['at least 0', -Infinity, 'size is -Infinity, but must be a number of at least 0'],
    ['timer', 0, 'size is 0, but must be a number of milliseconds from 1 to 2147483647 (24.8 days)'],
    ['timer', 0.9, 'size is 0.9, but must be a number of milliseconds from 1 to 2147483647 (24.8 days)'],
    [
      'timer',
      2_147_483_648,
      'size is 2147483648, but must be a number of milliseconds from 1 to 2147483647 (24.8 days)',
    ],
    [
      'timer',
      Infinity,
      'size is Infinity, but must be a number of milliseconds from 1 to 2147483647 (24.8 days)',
    ],
    ['timer', NaN, 'size is NaN, but must be a number of milliseconds from 1 to 2147483647 (24.8 days)'],
    ['timer', '30s', 'size is "30s", but must be a number of milliseconds from 1 to 2147483647 (24.8 days)'],
    ['timer', null, 'size is null, but must be a number of milliseconds from 1 to 2147483647 (24.8 days)'],
    [
      'timer from 500',
      499,
      'size is 499, but must be a number of milliseconds from 500 to 2147483647 (24.8 days)',
    ],
  ])('%s: refuses %o by name, value and what it must be', (kind, value, problem) => {
    expect(messageOf((checks) => void check(kind, checks, value))).toBe(`@Thing(): ${problem}.`);
  });

  it.each([
    { value: undefined, fallback: true, flag: true },
    { value: undefined, fallback: false, flag: false },
    { value: true, fallback: false, flag: true },
    { value: false, fallback: true, flag: false },
  ])('a flag of $value with default $fallback is $flag', ({ value, fallback, flag }) => {
    expect(messageOf((checks) => expect(checks.flag('on', value, fallback)).toBe(flag))).toBeUndefined();
  });

  it.each([
    ['false', '"false"'],
    ['', '""'],
    [0, '0'],
    [null, 'null'],
  ])('refuses a flag that is %o instead of taking it for true or false', (value, told) => {
    expect(messageOf((checks) => void checks.flag('on', value as never, true))).toBe(
      `@Thing(): on is ${told}, but must be true or false.`,
    );
  });

  it.each([
    ['an arrow function', (): number => 1],
    ['an asynchronous function', async (): Promise<void> => {}],
    ['a class', class {}],
    ['nothing', undefined],
  ])('takes a callback that is %s', (_what, value) => {
    expect(messageOf((checks) => checks.callback('hook', value))).toBeUndefined();
  });

  it.each([
    ['acme', '"acme"'],
    [null, 'null'],
    [{}, '[object Object]'],
  ])('refuses a callback that is %o', (value, told) => {
    expect(messageOf((checks) => checks.callback('hook', value))).toBe(
      `@Thing(): hook is ${told}, but must be a function.`,
    );
  });

  it('tells all problems at once, in the order they were found', () => {
    const message = messageOf((checks) => {
      checks.positive('first', -1, 1);
      checks.count('fine', 3, 1);
      checks.fail('second', 'blue', '"red" or "green"');
      checks.atLeast('third', 1, 9, 5);
    });
    expect(message).toBe(
      '@Thing(): first is -1, but must be a number greater than 0; second is "blue", but must be "red" or "green"; third is 1, but must be a number of at least 5.',
    );
  });

  it('says nothing when nothing is wrong', () => {
    expect(messageOf((checks) => void checks.positive('first', 1, 2))).toBeUndefined();
  });
});
