import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { withTimeout } from './dependency-guard.js';

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  expect(vi.getTimerCount()).toBe(0);
  vi.useRealTimers();
});

const tooLong = new Error('took too long');
const onTimeout = (): Error => tooLong;
const never = (): Promise<never> => new Promise(() => undefined);

/** How a promise ends; undefined: it has not. */
function watch(promise: Promise<unknown>): { end: unknown } {
  const seen: { end: unknown } = { end: undefined };
  promise.then(
    (value) => (seen.end = { value }),
    (error: unknown) => (seen.end = { error }),
  );
  return seen;
}

/** How many listeners a signal has. */
function watched(): { controller: AbortController; listeners: () => number } {
  const controller = new AbortController();
  let count = 0;
  const { signal } = controller;
  const add = signal.addEventListener.bind(signal);
  const remove = signal.removeEventListener.bind(signal);
  signal.addEventListener = (...listener: Parameters<typeof add>): void => {
    count += 1;
    add(...listener);
  };
  signal.removeEventListener = (...listener: Parameters<typeof remove>): void => {
    count -= 1;
    remove(...listener);
  };
  return { controller, listeners: () => count };
}

describe('withTimeout', () => {
  it('gives what the function returns, at once or later', async () => {
    expect(await withTimeout(() => 7, 1_000, undefined, onTimeout)).toBe(7);
    expect(await withTimeout(async () => 'later', 1_000, undefined, onTimeout)).toBe('later');
  });

  it.each([
    [
      'throws',
      (): never => {
        throw new Error('refused');
      },
    ],
    ['rejects', async () => Promise.reject(new Error('refused'))],
  ])('rejects with what the function %s, and its signal is not aborted', async (_how, fails) => {
    let signal: AbortSignal | undefined;
    const call = withTimeout<unknown>(
      (given) => {
        signal = given;
        return fails();
      },
      1_000,
      undefined,
      onTimeout,
    );
    await expect(call).rejects.toThrow('refused');
    expect(signal?.aborted).toBe(false);
  });

  it('aborts the signal at the timeout, with the error that it rejects with', async () => {
    let signal: AbortSignal | undefined;
    const ending = watch(
      withTimeout(
        (given) => {
          signal = given;
          return never();
        },
        1_000,
        undefined,
        onTimeout,
      ),
    );
    await vi.advanceTimersByTimeAsync(999);
    expect(ending.end).toBeUndefined();
    expect(signal?.aborted).toBe(false);
    await vi.advanceTimersByTimeAsync(1);
    expect(signal?.reason).toBe(tooLong);
    expect(ending.end).toEqual({ error: tooLong });
  });

  it('does not wait for a function that ignores its signal, whatever it comes to later', async () => {
    let fail!: (error: Error) => void;
    const ending = watch(
      withTimeout(() => new Promise((_resolve, reject) => (fail = reject)), 1_000, undefined, onTimeout),
    );
    await vi.advanceTimersByTimeAsync(1_000);
    fail(new Error('late'));
    await vi.advanceTimersByTimeAsync(0);
    expect(ending.end).toEqual({ error: tooLong });
  });

  it('ends with the operation around it, for the reason it was aborted for', async () => {
    const { controller, listeners } = watched();
    let signal: AbortSignal | undefined;
    const ending = watch(
      withTimeout(
        (given) => {
          signal = given;
          return never();
        },
        1_000,
        controller.signal,
        onTimeout,
      ),
    );
    await vi.advanceTimersByTimeAsync(10);
    const reason = new Error('the lease is lost');
    controller.abort(reason);
    await vi.advanceTimersByTimeAsync(0);
    expect(signal?.reason).toBe(reason);
    expect(ending.end).toEqual({ error: reason });
    expect(listeners()).toBe(0);
  });

  it('does not call the function where the operation around it is over', async () => {
    const reason = new Error('shutdown');
    const fn = vi.fn(never);
    await expect(withTimeout(fn, 1_000, AbortSignal.abort(reason), onTimeout)).rejects.toBe(reason);
    expect(fn).not.toHaveBeenCalled();
  });

  it('leaves nothing behind on the signal around it, however it ends', async () => {
    const { controller, listeners } = watched();
    await withTimeout(() => 1, 1_000, controller.signal, onTimeout);
    const failing = withTimeout(() => Promise.reject(new Error('no')), 1_000, controller.signal, onTimeout);
    await expect(failing).rejects.toThrow('no');
    const slow = watch(withTimeout(never, 1_000, controller.signal, onTimeout));
    expect(listeners()).toBe(1);
    await vi.advanceTimersByTimeAsync(1_000);
    expect(slow.end).toEqual({ error: tooLong });
    expect(listeners()).toBe(0);
  });
});
