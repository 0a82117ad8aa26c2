import { describe, expect, it, vi } from 'vitest';
import { Location } from './location.js';

describe('Location', () => {
  it('asks once, however often and however many ask it', async () => {
    const find = vi.fn(async () => 'here');
    const location = new Location(find);
    expect(await Promise.all([location.is('here'), location.is('here')])).toEqual([true, true]);
    expect(await location.is('here')).toBe(true);
    expect(find).toHaveBeenCalledTimes(1);
  });

  it('does not ask at every other name, but asks again after a second, in which a server may have been restarted', async () => {
    vi.useFakeTimers({ toFake: ['performance', 'setTimeout', 'clearTimeout'] });
    try {
      const find = vi.fn(async () => 'before');
      const location = new Location(find);
      expect(await location.is('after')).toBe(false);
      expect(await location.is('after')).toBe(false);
      expect(find).toHaveBeenCalledTimes(1);
      find.mockImplementation(async () => 'after');
      vi.advanceTimersByTime(1000);
      expect(await location.is('after')).toBe(true);
      expect(find).toHaveBeenCalledTimes(2);
    } finally {
      vi.useRealTimers();
    }
  });

  it('does not know where a database is that cannot be asked, or does not answer within a second', async () => {
    const broken = new Location(() => Promise.reject(new Error('connection refused')));
    expect(await broken.is('here')).toBeUndefined();
    vi.useFakeTimers({ toFake: ['performance', 'setTimeout', 'clearTimeout'] });
    try {
      const silent = new Location(() => new Promise(() => undefined));
      const answer = silent.is('here');
      await vi.advanceTimersByTimeAsync(1000);
      expect(await answer).toBeUndefined();
    } finally {
      vi.useRealTimers();
    }
  });
});
