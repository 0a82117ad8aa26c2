import { describe, expect, it } from 'vitest';
import type { Database } from '../postgres/database.js';
import type { Call } from '../postgres/statement.js';
import type { ClaimRules } from './claim.js';
import { type Completion, Exchange } from './exchange.js';

const rulesOf = (rules: Partial<ClaimRules> = {}): ClaimRules => ({
  queue: 'charges',
  origin: 'call',
  effect: 'keyed',
  leaseMs: 30_000,
  repeatableMs: 60_000,
  retentionMs: 120_000,
  budgetMs: null,
  canReconcile: false,
  ...rules,
});

const completionOf = (operationKey: string, rules: ClaimRules): Completion => ({
  rules,
  tenantId: 'acme',
  operationKey,
  token: 1,
  result: null,
  resultOmitted: null,
  degraded: null,
  retentionMs: rules.retentionMs,
});

/** What was asked of a ledger in which every completion is written. */
function make(): { exchange: Exchange; asked: string[][] } {
  const asked: string[][] = [];
  const run = async (call: Call): Promise<unknown[]> => {
    asked.push([call.statement.name, String(call.values()[1])]);
    return [];
  };
  return { exchange: new Exchange({ run } as unknown as Database), asked };
}

describe('Exchange', () => {
  it('shares a statement between rules that say the same, as those of guarded calls do', async () => {
    const { exchange, asked } = make();
    const ends = await Promise.all([
      exchange.complete(completionOf('a', rulesOf())),
      exchange.complete(completionOf('b', rulesOf())),
    ]);
    expect(ends).toEqual(['recorded', 'recorded']);
    expect(asked).toEqual([['complete', '{"a","b"}']]);
  });

  it.each<Partial<ClaimRules>>([
    { queue: 'mails' },
    { effect: 'natural' },
    { leaseMs: 1000 },
    { repeatableMs: null },
    { budgetMs: 5 },
    { canReconcile: true },
    { origin: 'job' },
  ])('shares none between rules that differ: %j', async (other) => {
    const { exchange, asked } = make();
    await Promise.all([
      exchange.complete(completionOf('a', rulesOf())),
      exchange.complete(completionOf('b', rulesOf(other))),
    ]);
    expect(asked).toEqual([
      ['complete', '{"a"}'],
      ['complete', '{"b"}'],
    ]);
  });
});
