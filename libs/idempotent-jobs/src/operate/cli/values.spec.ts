import { describe, expect, it } from 'vitest';
import { Values } from './values.js';
import { WrongUsage } from './wrong-usage.js';

const given = (value: string): Values => new Values({ option: value }, undefined);

describe('Values', () => {
  it.each([
    ['250ms', 250],
    ['90s', 90_000],
    ['1.5m', 90_000],
    ['2h', 7_200_000],
    ['7d', 604_800_000],
  ])('reads %s as a time span', (text, ms) => {
    expect(given(text).durationMs('option')).toBe(ms);
  });

  it.each(['90', '-1s', '1w', 's', '1 h', '1h30m'])('does not read %s as a time span', (text) => {
    expect(() => given(text).durationMs('option')).toThrow(WrongUsage);
  });

  it.each([
    ['1', 1],
    ['0.5', 0.5],
    ['10', 10],
  ])('reads %s as a number', (text, number) => {
    expect(given(text).number('option', 0, 10)).toBe(number);
  });

  it.each(['11', '-1', '1e1', '0x5', ' 5', 'five', 'NaN'])('does not read "%s" as a number', (text) => {
    expect(() => given(text).number('option', 0, 10)).toThrow('--option must be a number from 0 to 10');
  });

  it.each(['2026-01-31', '2026-01-31T12:00:00Z', '2026-01-31T12:00:00+01:00'])(
    'reads %s as a time',
    (text) => {
      expect(given(text).date('option')).toEqual(new Date(text));
    },
  );

  it.each(['yesterday', '1', '31.01.2026', '2026-13-01'])('does not read %s as a time', (text) => {
    expect(() => given(text).date('option')).toThrow(WrongUsage);
  });

  it('tells what is missing, and what is empty', () => {
    expect(() => new Values({}, undefined).required('actor')).toThrow('--actor is missing');
    expect(() => given('').text('option')).toThrow('--option must not be empty');
    expect(new Values({}, undefined).text('option')).toBeUndefined();
  });
});
