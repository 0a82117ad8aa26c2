import { describe, expect, it } from 'vitest';
import type { FaultSettings } from './fault-settings.js';
import { plannedFault, type ArrivalIdentity } from './planned-fault.js';

const plan: FaultSettings = {
  service: 'charge',
  seed: 7,
  rate: 0.3,
  kinds: ['answer_lost', 'slow', 'refused'],
};

function arrivals(count: number): ArrivalIdentity[] {
  return Array.from({ length: count }, (_, index) => ({
    service: 'charge',
    tenant: index % 2 === 0 ? 'acme' : 'globex',
    subject: `order-${index}`,
    ordinal: 1,
  }));
}

describe('plannedFault', () => {
  it('decides the same for an arrival in whatever order it is asked', () => {
    const stream = arrivals(200);
    const forwards = stream.map((arrival) => plannedFault(plan, arrival));
    const backwards = stream.toReversed().map((arrival) => plannedFault(plan, arrival));
    expect(backwards.toReversed()).toEqual(forwards);
  });

  it('keeps its decisions over versions of this program', () => {
    const kinds = arrivals(12).map((arrival) => plannedFault(plan, arrival) ?? '-');
    expect(kinds).toMatchInlineSnapshot(`
      [
        "slow",
        "answer_lost",
        "-",
        "-",
        "-",
        "-",
        "-",
        "answer_lost",
        "-",
        "-",
        "-",
        "refused",
      ]
    `);
  });

  it('strikes about as often as the rate says, with each kind about as often', () => {
    const kinds = arrivals(10_000).map((arrival) => plannedFault(plan, arrival));
    const share = (kind?: string) => kinds.filter((one) => one === kind).length / kinds.length;
    expect(share(undefined)).toBeCloseTo(0.7, 1);
    for (const kind of plan.kinds!) expect(share(kind)).toBeCloseTo(0.1, 1);
  });

  it('decides otherwise with another seed, tenant or ordinal', () => {
    const always = { ...plan, rate: 1 };
    const stream = arrivals(100);
    const kinds = (change: Partial<ArrivalIdentity>, seed = 7) =>
      stream.map((arrival) => plannedFault({ ...always, seed }, { ...arrival, ...change }));
    expect(kinds({}, 8)).not.toEqual(kinds({}));
    expect(kinds({ tenant: 'initech' })).not.toEqual(kinds({}));
    expect(kinds({ ordinal: 2 })).not.toEqual(kinds({}));
  });

  it.each([
    { cap: undefined, suffering: [1, 2] },
    { cap: 0, suffering: [] },
    { cap: 4, suffering: [1, 2, 3, 4] },
  ])('spares a subject after $cap arrivals (two, when not told)', ({ cap, suffering }) => {
    const always = { ...plan, rate: 1, ...(cap !== undefined && { maxFaultsPerSubject: cap }) };
    const struck = [1, 2, 3, 4, 5, 6].filter((ordinal) =>
      plannedFault(always, { service: 'charge', tenant: 'acme', subject: 'order-1', ordinal }),
    );
    expect(struck).toEqual(suffering);
  });
});
