import { describe, expect, it } from 'vitest';
import { ORIGINS } from '../../operation/origin.js';
import { DEAD_LETTER_REASONS } from '../../operation/reasons.js';
import { SCHEMA_STEPS } from './migrations.js';

/** The words that the last CHECK on a column allows. */
function allowed(column: string): string[] {
  const sql = SCHEMA_STEPS.map((step) => step.sql).join('\n');
  const [, list = ''] =
    [...sql.matchAll(new RegExp(`CHECK \\(${column} IN \\(([^)]*)\\)`, 'g'))].at(-1) ?? [];
  return [...list.matchAll(/'(\w+)'/g)].map(([, word = '']) => word);
}

describe('the schema', () => {
  it.each([
    ['reasons of dead letters', 'reason', DEAD_LETTER_REASONS],
    ['origins of operations', 'origin', ORIGINS],
  ])('allows the same %s as the code has', (_title, column, words) => {
    expect(allowed(column)).toEqual([...words]);
  });
});
