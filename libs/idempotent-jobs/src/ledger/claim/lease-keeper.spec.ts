import type { Call } from '../postgres/statement.js';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { Database } from '../postgres/database.js';
import { type KeptLease, LeaseKeeper, type LeaseTime } from './lease-keeper.js';

const at = (ms: number): LeaseTime => ({ monotonicMs: ms, wallMs: ms });

beforeEach(() => {
  vi.useFakeTimers({ now: 0 });
});
afterEach(() => {
  vi.useRealTimers();
});

interface Renewal {
  readonly atMs: number;
  readonly keys: string[];
  readonly tokens: number[];
  readonly leasesMs: number[];
}

/** A ledger that renews every lease but those `taken` and `locked`; `answer` may replace what it answers with. */
function make() {
  const renewals: Renewal[] = [];
  const taken = new Set<string>();
  const locked = new Set<string>();
  const world = { answer: async (rows: object[]): Promise<object[]> => rows };
  const database = {
    run: (call: Call) => {
      // Arrays are sent as texts; those of plain keys and numbers are JSON but for their braces.
      const values = call.values().map((text) => JSON.parse(`[${String(text).slice(1, -1)}]`) as unknown[]);
      const [tenants, keys, tokens, leasesMs] = values as [string[], string[], number[], number[]];
      renewals.push({ atMs: Date.now(), keys, tokens, leasesMs });
      const rows = keys.map((operation_key, index) => {
        const name = `${tenants.at(index)!}/${operation_key}`;
        return { is_renewed: !taken.has(name) && !locked.has(name), is_held: !taken.has(name) };
      });
      return world.answer(rows);
    },
  } as unknown as Database;
  const wall = { aheadMs: 0 };
  const keeper = new LeaseKeeper(database, () => ({
    monotonicMs: Date.now(),
    wallMs: Date.now() + wall.aheadMs,
  }));
  return { keeper, renewals, taken, locked, world, wall };
}

function lease(
  operationKey: string,
  leaseMs = 30_000,
  tenantId = 'acme',
): { held: KeptLease; lost: [string, number][] } {
  const lost: [string, number][] = [];
  const held = {
    tenantId,
    operationKey,
    token: 7,
    leaseMs,
    onLost: (why: string) => void lost.push([why, Date.now()]),
  };
  return { held, lost };
}

const never = (): Promise<object[]> => new Promise(() => undefined);
const refuse = (): Promise<object[]> => Promise.reject(new Error('connect ECONNREFUSED'));

describe('LeaseKeeper: renewing', () => {
  it('renews a lease at each third of its length, under its token', async () => {
    const { keeper, renewals } = make();
    const { held, lost } = lease('charge:1');
    keeper.keep(held, at(Date.now()));
    await vi.advanceTimersByTimeAsync(30_000);
    expect(renewals.map(({ atMs }) => atMs)).toEqual([10_000, 20_000, 30_000]);
    expect(renewals[0]).toMatchObject({ keys: ['charge:1'], tokens: [7], leasesMs: [30_000] });
    expect(lost).toEqual([]);
  });

  it('keeps a lease for as long as the ledger answers', async () => {
    const { keeper, renewals } = make();
    const { held, lost } = lease('charge:1', 600);
    keeper.keep(held, at(Date.now()));
    await vi.advanceTimersByTimeAsync(600 * 100);
    expect(lost).toEqual([]);
    expect(renewals.length).toBeGreaterThanOrEqual(300);
  });

  it('renews the leases of all running attempts in one statement', async () => {
    const { keeper, renewals } = make();
    for (const key of ['a', 'b', 'c']) keeper.keep(lease(key).held, at(Date.now()));
    await vi.advanceTimersByTimeAsync(10_000);
    expect(renewals.map(({ keys }) => keys)).toEqual([['a', 'b', 'c']]);
  });

  it('renews a lease that arrives between two looks before half of its length is over', async () => {
    const { keeper, renewals } = make();
    keeper.keep(lease('a').held, at(Date.now()));
    await vi.advanceTimersByTimeAsync(5_001);
    keeper.keep(lease('b').held, at(Date.now()));
    await vi.advanceTimersByTimeAsync(15_000);
    const first = renewals.find(({ keys }) => keys.includes('b'));
    expect(first!.atMs).toBeLessThanOrEqual(5_001 + 15_000);
    expect(first!.atMs).toBeGreaterThanOrEqual(5_001 + 10_000);
  });

  it('renews a short lease in time that comes while the timer is set for a long one', async () => {
    const { keeper, renewals } = make();
    const [long, short] = [lease('long', 60_000), lease('short', 600)];
    keeper.keep(long.held, at(Date.now()));
    await vi.advanceTimersByTimeAsync(50);
    keeper.keep(short.held, at(Date.now()));
    await vi.advanceTimersByTimeAsync(6_000);
    expect(renewals.at(0)).toMatchObject({ atMs: 250, keys: ['short'] });
    expect([...long.lost, ...short.lost]).toEqual([]);
  });

  it('looks no more often than before for a long lease that comes to a short one', async () => {
    const { keeper, renewals } = make();
    keeper.keep(lease('short', 6_000).held, at(Date.now()));
    await vi.advanceTimersByTimeAsync(500);
    keeper.keep(lease('long', 60_000).held, at(Date.now()));
    await vi.advanceTimersByTimeAsync(3_500);
    expect(renewals.map(({ atMs, keys }) => [atMs, ...keys])).toEqual([
      [2_000, 'short'],
      [4_000, 'short'],
    ]);
  });

  it('counts from when the claim was sent, not from when its answer came', async () => {
    const { keeper, renewals } = make();
    vi.setSystemTime(6_000);
    keeper.keep(lease('a').held, at(0));
    await vi.advanceTimersByTimeAsync(10_000);
    expect(renewals.at(0)!.atMs).toBe(11_000);
  });

  it('starts again for a lease that comes after it had nothing to do', async () => {
    const { keeper, renewals } = make();
    keeper.keep(lease('a').held, at(Date.now())).release();
    await vi.advanceTimersByTimeAsync(60_000);
    expect(renewals).toEqual([]);
    expect(vi.getTimerCount()).toBe(0);
    keeper.keep(lease('b').held, at(Date.now()));
    await vi.advanceTimersByTimeAsync(10_000);
    expect(renewals.map(({ keys }) => keys)).toEqual([['b']]);
  });
});

describe('LeaseKeeper: losing', () => {
  it('tells the attempt once when its lease was taken over, and renews it no more', async () => {
    const { keeper, renewals, taken } = make();
    const mine = lease('charge:1');
    const other = lease('charge:2');
    keeper.keep(mine.held, at(Date.now()));
    keeper.keep(other.held, at(Date.now()));
    taken.add('acme/charge:1');
    await vi.advanceTimersByTimeAsync(40_000);
    expect(mine.lost).toEqual([['taken_over', 10_000]]);
    expect(other.lost).toEqual([]);
    expect(renewals.slice(1).every(({ keys }) => keys.join() === 'charge:2')).toBe(true);
  });

  it('neither renews nor loses a lease whose row somebody has locked, and asks again at the next look', async () => {
    const { keeper, renewals, locked } = make();
    const [mine, other] = [lease('charge:1'), lease('charge:2')];
    keeper.keep(mine.held, at(Date.now()));
    keeper.keep(other.held, at(Date.now()));
    locked.add('acme/charge:1');
    await vi.advanceTimersByTimeAsync(15_000);
    expect(renewals.map(({ keys }) => keys)).toEqual([['charge:1', 'charge:2'], ['charge:1']]);
    locked.clear();
    await vi.advanceTimersByTimeAsync(60_000);
    expect([...mine.lost, ...other.lost]).toEqual([]);
  });

  it('loses a lease whose row stays locked for its whole length', async () => {
    const { keeper, locked } = make();
    const { held, lost } = lease('charge:1');
    keeper.keep(held, at(Date.now()));
    locked.add('acme/charge:1');
    await vi.advanceTimersByTimeAsync(60_000);
    expect(lost).toEqual([['not_renewed', 30_000]]);
  });

  it('does not mistake another tenant’s operation of the same key for its own', async () => {
    const { keeper, taken } = make();
    const acme = lease('charge:1', 30_000, 'acme');
    const globex = lease('charge:1', 30_000, 'globex');
    keeper.keep(acme.held, at(Date.now()));
    keeper.keep(globex.held, at(Date.now()));
    taken.add('globex/charge:1');
    await vi.advanceTimersByTimeAsync(10_000);
    expect(acme.lost).toEqual([]);
    expect(globex.lost).toEqual([['taken_over', 10_000]]);
  });

  it.each([
    ['refuses', refuse],
    ['does not answer', never],
  ])(
    'counts a lease as lost once its length has passed since the last renewal when the ledger %s',
    async (_how, answer) => {
      const { keeper, world } = make();
      const { held, lost } = lease('charge:1');
      keeper.keep(held, at(Date.now()));
      await vi.advanceTimersByTimeAsync(10_000);
      world.answer = answer;
      await vi.advanceTimersByTimeAsync(29_999);
      expect(lost).toEqual([]);
      // One look later at the latest: a sixth of the lease, and as much again while a renewal is waited for.
      await vi.advanceTimersByTimeAsync(10_001);
      expect(lost).toEqual([['not_renewed', expect.any(Number)]]);
      await vi.advanceTimersByTimeAsync(120_000);
      expect(lost).toHaveLength(1);
    },
  );

  it('counts from when the renewal was sent: an answer that took long gives no longer lease', async () => {
    const { keeper, world } = make();
    const { held, lost } = lease('charge:1');
    keeper.keep(held, at(Date.now()));
    world.answer = (rows) => new Promise((resolve) => setTimeout(() => resolve(rows), 7_000));
    await vi.advanceTimersByTimeAsync(17_000);
    world.answer = refuse;
    await vi.advanceTimersByTimeAsync(23_000);
    expect(lost).toEqual([['not_renewed', 40_000]]);
  });

  it('keeps the lease when the ledger is back before its length has passed', async () => {
    const { keeper, world } = make();
    const { held, lost } = lease('charge:1');
    keeper.keep(held, at(Date.now()));
    world.answer = refuse;
    await vi.advanceTimersByTimeAsync(24_999);
    world.answer = async (rows) => rows;
    await vi.advanceTimersByTimeAsync(60_000);
    expect(lost).toEqual([]);
  });

  it('tries again soon after the ledger refused, not a third of the lease later', async () => {
    const { keeper, renewals, world } = make();
    keeper.keep(lease('charge:1').held, at(Date.now()));
    world.answer = refuse;
    await vi.advanceTimersByTimeAsync(20_000);
    expect(renewals.map(({ atMs }) => atMs)).toEqual([10_000, 15_000, 20_000]);
  });

  it('sends another renewal once the one before was not answered for a third of the shortest lease, not before', async () => {
    const { keeper, renewals, world } = make();
    keeper.keep(lease('charge:1').held, at(Date.now()));
    world.answer = never;
    await vi.advanceTimersByTimeAsync(19_999);
    expect(renewals.map(({ atMs }) => atMs)).toEqual([10_000]);
    await vi.advanceTimersByTimeAsync(1);
    expect(renewals.map(({ atMs }) => atMs)).toEqual([10_000, 20_000]);
  });

  it('keeps a lease whose first renewal is never answered when the next one is', async () => {
    const { keeper, world } = make();
    const { held, lost } = lease('charge:1');
    keeper.keep(held, at(Date.now()));
    world.answer = never;
    await vi.advanceTimersByTimeAsync(10_500);
    world.answer = async (rows) => rows;
    await vi.advanceTimersByTimeAsync(120_000);
    expect(lost).toEqual([]);
  });
});

describe('LeaseKeeper: releasing', () => {
  it('renews a released lease no more, and tells nobody that it is gone', async () => {
    const { keeper, renewals } = make();
    const { held, lost } = lease('charge:1');
    const handle = keeper.keep(held, at(Date.now()));
    await vi.advanceTimersByTimeAsync(10_000);
    handle.release();
    await vi.advanceTimersByTimeAsync(90_000);
    expect(renewals).toHaveLength(1);
    expect(lost).toEqual([]);
  });

  it('tells nothing of a lease that was released while its renewal was under way', async () => {
    const { keeper, taken, world } = make();
    const { held, lost } = lease('charge:1');
    const handle = keeper.keep(held, at(Date.now()));
    taken.add('acme/charge:1');
    world.answer = (rows) => new Promise((resolve) => setTimeout(() => resolve(rows), 1_000));
    await vi.advanceTimersByTimeAsync(10_500);
    handle.release();
    await vi.advanceTimersByTimeAsync(60_000);
    expect(lost).toEqual([]);
  });

  it('stays stopped when a renewal was under way', async () => {
    const { keeper, renewals, world } = make();
    const { held, lost } = lease('charge:1');
    keeper.keep(held, at(Date.now()));
    world.answer = (rows) => new Promise((resolve) => setTimeout(() => resolve(rows), 1_000));
    await vi.advanceTimersByTimeAsync(10_500);
    keeper.stop();
    await vi.advanceTimersByTimeAsync(90_000);
    expect(renewals).toHaveLength(1);
    expect(lost).toEqual([]);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('stops for all leases, and leaves no timer behind', async () => {
    const { keeper, renewals } = make();
    const [first, second] = [lease('a'), lease('b')];
    keeper.keep(first.held, at(Date.now()));
    keeper.keep(second.held, at(Date.now()));
    keeper.stop();
    expect(vi.getTimerCount()).toBe(0);
    await vi.advanceTimersByTimeAsync(90_000);
    expect(renewals).toEqual([]);
    expect([...first.lost, ...second.lost]).toEqual([]);
  });
});

describe('LeaseKeeper: when the clock of the wall is set', () => {
  it('nothing is begun by the old one, what runs goes on, and Postgres says that it may', async () => {
    const { keeper, renewals, wall } = make();
    const handle = keeper.keep(lease('charge:1').held, at(Date.now()));
    const seen = (): boolean[] => [handle.isNearlyOver(), handle.hasRunOut()];
    wall.aheadMs = 60_000;
    expect(seen()).toEqual([true, false]);
    expect(await handle.confirm()).toBe(true);
    expect(renewals).toHaveLength(1);
    expect(seen()).toEqual([false, false]);
  });

  it('nothing may be begun where somebody has taken over, or where Postgres does not answer', async () => {
    const { keeper, taken, world, wall } = make();
    const [one, other] = [lease('charge:1'), lease('charge:2')];
    const [first, second] = [one, other].map(({ held }) => keeper.keep(held, at(Date.now())));
    wall.aheadMs = 60_000;
    taken.add('acme/charge:1');
    expect(await first?.confirm()).toBe(false);
    expect(one.lost).toEqual([['taken_over', 0]]);
    world.answer = refuse;
    expect(await second?.confirm()).toBe(false);
    expect(other.lost).toEqual([]);
  });
});
