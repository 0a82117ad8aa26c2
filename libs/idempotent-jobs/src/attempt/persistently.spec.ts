import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { isConnectionError, persistently } from './persistently.js';

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

const withCode = (code: unknown, message = 'failed'): Error => Object.assign(new Error(message), { code });

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

describe('persistently', () => {
  it('writes once when that works', async () => {
    const { write, triedAt } = failing();
    expect(await persistently(1_000, write)).toBe('written');
    expect(triedAt).toEqual([0]);
  });

  it('tries again, after longer and longer pauses, while the connection is the problem', async () => {
    const { write, triedAt } = failing(
      withCode('ECONNREFUSED'),
      withCode('57P01'),
      withCode('08006'),
      new Error('Connection terminated unexpectedly'),
    );
    const written = persistently(30_000, write);
    await vi.advanceTimersByTimeAsync(30_000);
    expect(await written).toBe('written');
    expect(triedAt).toEqual([0, 50, 150, 350, 750]);
  });

  it('pauses no longer than two seconds', async () => {
    const { write, triedAt } = failing(...forever(withCode('ECONNREFUSED')));
    const written = persistently(12_000, write).catch(() => 'given up');
    await vi.advanceTimersByTimeAsync(12_000);
    expect(await written).toBe('given up');
    expect(triedAt).toEqual([0, 50, 150, 350, 750, 1_550, 3_150, 5_150, 7_150, 9_150, 11_150]);
  });

  it('gives up, with the last error, before its patience is over', async () => {
    const last = withCode('ECONNRESET');
    const { write, triedAt } = failing(withCode('ECONNREFUSED'), withCode('ECONNREFUSED'), last);
    const written = persistently(300, write).catch((error: unknown) => error);
    await vi.advanceTimersByTimeAsync(1_000);
    expect(await written).toBe(last);
    expect(triedAt).toEqual([0, 50, 150]);
  });

  it('tries once when it has no patience at all', async () => {
    const { write, triedAt } = failing(withCode('ECONNREFUSED'));
    await expect(persistently(0, write)).rejects.toThrow('failed');
    expect(triedAt).toEqual([0]);
  });

  it('takes any other error for final', async () => {
    const { write, triedAt } = failing(withCode('23505'));
    await expect(persistently(30_000, write)).rejects.toMatchObject({ code: '23505' });
    expect(triedAt).toEqual([0]);
  });

  it.each([undefined, null])('survives a rejection with %s', async (reason) => {
    const { write } = failing(...forever(reason));
    const end = persistently(300, write).then(
      () => 'written',
      (thrown: unknown) => [thrown],
    );
    await vi.advanceTimersByTimeAsync(1_000);
    expect(await end).toEqual([reason]);
  });

  it('takes another error for final also after it has waited for the connection', async () => {
    const { write, triedAt } = failing(withCode('ECONNREFUSED'), withCode('42P01'));
    const written = persistently(30_000, write).catch((error: unknown) => error);
    await vi.advanceTimersByTimeAsync(30_000);
    expect(await written).toMatchObject({ code: '42P01' });
    expect(triedAt).toEqual([0, 50]);
  });
});

describe('isConnectionError', () => {
  it.each([
    ['ECONNREFUSED', true],
    ['ECONNRESET', true],
    ['EPIPE', true],
    ['ETIMEDOUT', true],
    ['ENOTFOUND', true],
    ['EAI_AGAIN', true],
    ['08000', true],
    ['08006', true],
    ['57P01', true],
    ['57P02', true],
    ['57P03', true],
    ['53300', true],
    ['57014', false],
    ['40001', false],
    ['23505', false],
    ['22021', false],
    ['42P01', false],
    ['XX000', false],
    ['ENOENT', false],
  ])('%s: %s', (code, isOne) => {
    expect(isConnectionError(withCode(code))).toBe(isOne);
  });

  it.each([
    ['Connection terminated unexpectedly', true],
    ['Connection terminated due to connection timeout', true],
    ['timeout exceeded when trying to connect', true],
    ['Client has encountered a connection error and is not queryable', true],
    ['division by zero', false],
    ['', false],
  ])('an error of the driver without a code, "%s": %s', (message, isOne) => {
    expect(isConnectionError(new Error(message))).toBe(isOne);
  });

  it('goes by the code before the message', () => {
    expect(isConnectionError(withCode('23505', 'duplicate key in table connection'))).toBe(false);
  });

  it.each([['ECONNREFUSED'], [undefined], [null], [0], [Object.create(null)]])(
    'makes nothing of what is no error: %o',
    (thrown) => {
      expect(isConnectionError(thrown)).toBe(false);
    },
  );
});
