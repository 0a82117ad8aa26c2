import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { NoConnectionError } from '../../ledger/postgres/no-connection.js';
import { RowLockedError } from '../../ledger/claim/exchange.js';
import { withRetry } from './with-retry.js';

// The fake clock has no hold of node:timers/promises.
vi.mock('node:timers/promises', () => ({
  setTimeout: (ms: number) => new Promise((resolve) => setTimeout(resolve, ms)),
}));

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

/** As Postgres says it. */
const withCode = (code: string): Error => Object.assign(new Error('failed'), { code, severity: 'ERROR' });
const noConnection = (): Error => new NoConnectionError('refused');

/** A write that fails as long as there are errors; when it was tried, in ms from the start. */
function failing(...errors: unknown[]) {
  const startedAt = performance.now();
  const triedAt: number[] = [];
  const write = async (): Promise<string> => {
    triedAt.push(Math.round(performance.now() - startedAt));
    if (errors.length > 0) throw errors.shift();
    return 'written';
  };
  return { write, triedAt };
}

const forever = (error: unknown): unknown[] => Array.from({ length: 10_000 }, () => error);

describe('withRetry', () => {
  it('writes once when that works', async () => {
    const { write, triedAt } = failing();
    expect(await withRetry(1_000, write)).toBe('written');
    expect(triedAt).toEqual([0]);
  });

  it('tries again, after longer and longer pauses, while the connection is the problem', async () => {
    const { write, triedAt } = failing(
      noConnection(),
      withCode('57P01'),
      withCode('08006'),
      new RowLockedError(),
    );
    const written = withRetry(30_000, write);
    await vi.advanceTimersByTimeAsync(30_000);
    expect(await written).toBe('written');
    expect(triedAt).toEqual([0, 50, 150, 350, 750]);
  });

  it('pauses no longer than two seconds', async () => {
    const { write, triedAt } = failing(...forever(noConnection()));
    const written = withRetry(12_000, write).catch(() => 'given up');
    await vi.advanceTimersByTimeAsync(12_000);
    expect(await written).toBe('given up');
    expect(triedAt).toEqual([0, 50, 150, 350, 750, 1_550, 3_150, 5_150, 7_150, 9_150, 11_150]);
  });

  it('gives up, with the last error, before its patience is over', async () => {
    const last = noConnection();
    const { write, triedAt } = failing(noConnection(), noConnection(), last);
    const written = withRetry(300, write).catch((error: unknown) => error);
    await vi.advanceTimersByTimeAsync(1_000);
    expect(await written).toBe(last);
    expect(triedAt).toEqual([0, 50, 150]);
  });

  it('tries once when it has no patience at all', async () => {
    const { write, triedAt } = failing(noConnection());
    await expect(withRetry(0, write)).rejects.toThrow('refused');
    expect(triedAt).toEqual([0]);
  });

  it('takes any other error for final', async () => {
    const { write, triedAt } = failing(withCode('23505'));
    await expect(withRetry(30_000, write)).rejects.toMatchObject({ code: '23505' });
    expect(triedAt).toEqual([0]);
  });

  it.each([undefined, null])('survives a rejection with %s', async (reason) => {
    const { write } = failing(...forever(reason));
    const end = withRetry(300, write).then(
      () => 'written',
      (thrown: unknown) => [thrown],
    );
    await vi.advanceTimersByTimeAsync(1_000);
    expect(await end).toEqual([reason]);
  });

  it('takes another error for final also after it has waited for the connection', async () => {
    const { write, triedAt } = failing(noConnection(), withCode('42P01'));
    const written = withRetry(30_000, write).catch((error: unknown) => error);
    await vi.advanceTimersByTimeAsync(30_000);
    expect(await written).toMatchObject({ code: '42P01' });
    expect(triedAt).toEqual([0, 50]);
  });
});
