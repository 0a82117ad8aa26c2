import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { CachedReading } from './cached-reading.js';

beforeEach(() => vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

/** A reading whose every answer the test gives by hand. */
function scripted() {
  const asked: { answer: (value: string) => void; fail: () => void }[] = [];
  const reading = new CachedReading(
    () =>
      new Promise<string>((resolve, reject) => {
        asked.push({ answer: resolve, fail: () => reject(new Error('no')) });
      }),
    () => Date.now(),
  );
  return { asked, reading };
}

describe('CachedReading', () => {
  it('is one reading for all who ask while it is under way, and for 10 s after', async () => {
    const { asked, reading } = scripted();
    const both = Promise.all([reading.get(), reading.get()]);
    asked[0]?.answer('one');
    expect(await both).toEqual(['one', 'one']);
    vi.advanceTimersByTime(9_999);
    expect(await reading.get()).toBe('one');
    expect(asked).toHaveLength(1);
    vi.advanceTimersByTime(1);
    const next = reading.get();
    asked[1]?.answer('two');
    expect(await next).toBe('two');
  });

  it('that fails is no reading for 10 s, and is then tried again', async () => {
    const { asked, reading } = scripted();
    const first = reading.get();
    asked[0]?.fail();
    expect(await first).toBeUndefined();
    expect(await reading.get()).toBeUndefined();
    expect(asked).toHaveLength(1);
    vi.advanceTimersByTime(10_000);
    const next = reading.get();
    asked[1]?.answer('back');
    expect(await next).toBe('back');
  });

  it('that throws at once is no reading either', async () => {
    const reading = new CachedReading((): Promise<string> => {
      throw new Error('no');
    });
    expect(await reading.get()).toBeUndefined();
  });

  it('does not give out an old reading in place of one that fails', async () => {
    const { asked, reading } = scripted();
    const first = reading.get();
    asked[0]?.answer('old');
    await first;
    vi.advanceTimersByTime(10_000);
    const next = reading.get();
    asked[1]?.fail();
    expect(await next).toBeUndefined();
  });

  it('keeps the first who asks for 2 s at most, nobody else, and is never under way twice', async () => {
    const { asked, reading } = scripted();
    const first = reading.get();
    await vi.advanceTimersByTimeAsync(1_500);
    const second = reading.get();
    await vi.advanceTimersByTimeAsync(500);
    expect(await first).toBeUndefined();
    expect(await second).toBeUndefined();
    expect(await reading.get()).toBeUndefined();
    expect(asked).toHaveLength(1);
  });

  it('that ends too late for whoever asked is given to the next', async () => {
    const { asked, reading } = scripted();
    const first = reading.get();
    await vi.advanceTimersByTimeAsync(3_000);
    expect(await first).toBeUndefined();
    asked[0]?.answer('late');
    await vi.advanceTimersByTimeAsync(0);
    expect(await reading.get()).toBe('late');
  });

  it('that never ends is given up after a minute, and what it may say then counts no more', async () => {
    const { asked, reading } = scripted();
    void reading.get();
    await vi.advanceTimersByTimeAsync(60_000);
    const next = reading.get();
    asked[0]?.answer('of yesterday');
    asked[1]?.answer('of today');
    expect(await next).toBe('of today');
    expect(asked).toHaveLength(2);
  });
});
