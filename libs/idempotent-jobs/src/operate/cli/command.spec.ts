import { describe, expect, it } from 'vitest';
import {
  duration,
  number,
  type Option,
  read,
  required,
  text,
  time,
  wholeNumber,
  WrongUsage,
} from './command.js';

/** What is read where that was given. */
function given<T>(value: string, option: Option<T>): unknown {
  return read({ value: option }, { option: value })['value'];
}
const SPAN = duration('option', '');
const NUMBER = number('option', [0, 10], '');
const WHOLE = wholeNumber('option', [2, 64], '');
const TIME = time('option', '');
const TEXT = text('option', '<text>', '');

describe('the options of a command', () => {
  it.each([
    ['250ms', 250],
    ['90s', 90_000],
    ['1.5m', 90_000],
    ['2h', 7_200_000],
    ['7d', 604_800_000],
  ])('reads %s as a time span', (text, ms) => {
    expect(given(text, SPAN)).toBe(ms);
  });

  it.each(['90', '-1s', '1w', 's', '1 h', '1h30m'])('does not read %s as a time span', (text) => {
    expect(() => given(text, SPAN)).toThrow(WrongUsage);
  });

  it.each([
    ['1', 1],
    ['0.5', 0.5],
    ['10', 10],
  ])('reads %s as a number', (text, number) => {
    expect(given(text, NUMBER)).toBe(number);
  });

  it.each(['11', '-1', '1e1', '0x5', ' 5', 'five', 'NaN'])('does not read "%s" as a number', (text) => {
    expect(() => given(text, NUMBER)).toThrow('--option must be a number from 0 to 10');
  });

  it.each([
    ['2', 2],
    ['64', 64],
  ])('reads %s as a whole number', (text, number) => {
    expect(given(text, WHOLE)).toBe(number);
  });

  it.each(['1', '65', '2.5', '-2', '1e1', 'two'])('does not read "%s" as a whole number', (text) => {
    expect(() => given(text, WHOLE)).toThrow('--option must be a whole number from 2 to 64');
  });

  it.each(['2026-01-31', '2026-01-31T12:00:00Z', '2026-01-31T12:00:00+01:00'])(
    'reads %s as a time',
    (text) => {
      expect(given(text, TIME)).toEqual(new Date(text));
    },
  );

  it.each(['yesterday', '1', '31.01.2026', '2026-13-01'])('does not read %s as a time', (text) => {
    expect(() => given(text, TIME)).toThrow(WrongUsage);
  });

  it('tells what is missing, and what is empty', () => {
    expect(() => read({ actor: required(text('actor', '<who>', '')) }, {})).toThrow('--actor is missing');
    expect(() => given('', TEXT)).toThrow('--option must not be empty');
    expect(read({ option: TEXT }, {}).option).toBeUndefined();
  });
});
