import { describe, expect, it } from 'vitest';
import type { Verdict } from './judge.js';
import { table } from './table.js';

const verdict: Verdict = {
  operations: 20,
  charges: 10,
  duplicateCharges: 1,
  duplicateMails: 2,
  wrongTenantMails: 3,
  lost: 4,
  inDoubt: 5,
  deadLetters: 6,
  seconds: 7,
};

const cellsOf = (line: string | undefined): string[] => line?.split(/\s{2,}/) ?? [];

describe('table', () => {
  it('has one row for each variant, its counts in the order of the headings', () => {
    const lines = table([
      { title: '(a)', verdict },
      { title: '(b)', verdict: { ...verdict, lost: 0 } },
    ]).split('\n');
    expect(lines).toHaveLength(5);
    expect(cellsOf(lines[3])).toEqual(['(a)', '20', '10', '1', '2', '3', '4', '5', '6', '7.0']);
    expect(cellsOf(lines[4])[6]).toBe('0');
  });

  it('says when Redis was lost and with how many jobs, where it was', () => {
    const lines = table([{ title: '(a)', verdict, flush: { second: 1.5, jobs: 310 } }]).split('\n');
    expect(lines[0]).toMatch(/Redis lost {2}with$/);
    expect(cellsOf(lines[3]).slice(-2)).toEqual(['1.5', '310']);
  });
});
