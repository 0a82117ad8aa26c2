import { describe, expect, it } from 'vitest';
import type { Promised } from '../variants/variant.js';
import type { Verdict } from './judge.js';
import { describePromise, keepsPromise } from './promise.js';

const verdict: Verdict = {
  operations: 20,
  charges: 10,
  duplicateCharges: 0,
  duplicateMails: 0,
  wrongTenantMails: 0,
  lost: 0,
  inDoubt: 0,
  deadLetters: 1,
  seconds: 7,
};

/** Who keeps the promise with one of these, and everything else in order. */
const cases: [string, Partial<Verdict>, Promised[]][] = [
  ['nothing', {}, ['nothing', 'once', 'known']],
  ['an operation in doubt', { inDoubt: 1 }, ['nothing', 'once']],
  ['a duplicate charge', { duplicateCharges: 1 }, ['nothing']],
  ['a duplicate mail', { duplicateMails: 1 }, ['nothing']],
  ['a mail in a foreign name', { wrongTenantMails: 1 }, ['nothing']],
  ['a lost operation', { lost: 1 }, ['nothing']],
];

describe('keepsPromise', () => {
  it.each(cases)('with %s to complain about', (_complaint, complaint, keepers) => {
    const all: Promised[] = ['nothing', 'once', 'known'];
    const judged = { verdict: { ...verdict, ...complaint }, unrest: undefined };
    expect(all.filter((promised) => keepsPromise(promised, judged))).toEqual(keepers);
  });

  it('is broken by whatever does not come to rest', () => {
    const judged = { verdict, unrest: 'Waited in vain' };
    expect(keepsPromise('once', judged)).toBe(false);
    expect(keepsPromise('known', judged)).toBe(false);
    expect(describePromise('(d)', 'known', judged)).toContain('BROKEN');
  });
});

it('describePromise says how much is in doubt only where something may be', () => {
  const judged = { verdict: { ...verdict, inDoubt: 3 }, unrest: undefined };
  expect(describePromise('(c)', 'once', judged)).toContain('In doubt: 3 receipts');
  expect(describePromise('(d)', 'known', { ...judged, verdict })).toContain('Nothing in doubt');
});
