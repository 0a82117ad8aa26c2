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

  it('does not ask at every other name, but asks again after ten seconds, in which a server may have been replaced', async () => {
    vi.useFakeTimers({ toFake: ['performance', 'setTimeout', 'clearTimeout'] });
    try {
      const find = vi.fn(async () => 'before');
      const location = new Location(find);
      expect(await location.is('after')).toBe(false);
      expect(await location.is('after')).toBe(false);
      expect(find).toHaveBeenCalledTimes(1);
      find.mockImplementation(async () => 'after');
      vi.advanceTimersByTime(9_999);
      expect(await location.is('after')).toBe(false);
      expect(find).toHaveBeenCalledTimes(1);
      vi.advanceTimersByTime(1);
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

  it('keeps calls waiting for one second in all, however many come while an answer fails to', async () => {
    vi.useFakeTimers({ toFake: ['performance', 'setTimeout', 'clearTimeout'] });
    try {
      const find = vi.fn(async () => 'before');
      const location = new Location(find);
      expect(await location.is('before')).toBe(true);
      vi.advanceTimersByTime(1000);
      find.mockImplementation(() => new Promise(() => undefined));
      const first = location.is('after');
      await vi.advanceTimersByTimeAsync(600);
      const second = location.is('after');
      await vi.advanceTimersByTimeAsync(400);
      expect(await Promise.all([first, second])).toEqual([undefined, undefined]);
      for (let call = 0; call < 3; call += 1) {
        const startedAt = performance.now();
        expect(await location.is('after')).toBeUndefined();
        expect(performance.now()).toBe(startedAt);
      }
      expect(await location.is('before')).toBe(true);
      expect(find).toHaveBeenCalledTimes(2);
    } finally {
      vi.useRealTimers();
    }
  });

  it('asks again after a second when asking has failed, and calls nothing elsewhere meanwhile', async () => {
    vi.useFakeTimers({ toFake: ['performance', 'setTimeout', 'clearTimeout'] });
    try {
      const find = vi.fn(() => Promise.reject<string>(new Error('connection refused')));
      const location = new Location(find);
      expect(await location.is('here')).toBeUndefined();
      expect(await location.is('here')).toBeUndefined();
      expect(find).toHaveBeenCalledTimes(1);
      vi.advanceTimersByTime(1000);
      find.mockImplementation(async () => 'here');
      expect(await location.is('here')).toBe(true);
    } finally {
      vi.useRealTimers();
    }
  });
});
