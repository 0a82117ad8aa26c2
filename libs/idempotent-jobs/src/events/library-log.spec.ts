import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Repeats } from './library-log.js';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

function begin() {
  const lines: string[] = [];
  return { repeats: new Repeats((line) => lines.push(line)), lines };
}

describe('Repeats', () => {
  it('writes the first at once, and the others as one line when ten seconds are over', () => {
    const { repeats, lines } = begin();
    for (let round = 0; round < 5000; round += 1) repeats.say('Redis is read-only');
    expect(lines).toEqual(['Redis is read-only']);
    vi.advanceTimersByTime(10_000);
    expect(lines.slice(1)).toEqual(['Redis is read-only (4999 of these within 10 s)']);
  });

  it('writes ever more seldom while it goes on, but once a minute at least', () => {
    const { repeats, lines } = begin();
    for (let second = 0; second < 300; second += 1) {
      repeats.say('no connection');
      vi.advanceTimersByTime(1000);
    }
    expect(lines).toEqual([
      'no connection',
      'no connection (9 of these within 10 s)',
      'no connection (20 of these within 20 s)',
      'no connection (40 of these within 40 s)',
      ...Array.from({ length: 3 }, () => 'no connection (60 of these within 60 s)'),
    ]);
  });

  it('says nothing more once it is over, and speaks at once when it comes back', () => {
    const { repeats, lines } = begin();
    repeats.say('no connection');
    vi.advanceTimersByTime(10_000);
    expect(vi.getTimerCount()).toBe(0);
    repeats.say('no connection');
    expect(lines).toEqual(['no connection', 'no connection']);
  });

  it('takes messages that differ in ids alone for one kind, and shows the latest of them', () => {
    const { repeats, lines } = begin();
    for (const id of [1, 'op-' + 'a_-'.repeat(14) + 'z', '3f2b8c1de4', crypto.randomUUID(), 7])
      repeats.say(`could not renew lock for job ${id}`);
    repeats.flush();
    expect(lines).toEqual([
      'could not renew lock for job 1',
      'could not renew lock for job 7 (4 of these within 10 s)',
    ]);
  });

  it('keeps apart what comes from another queue, or is another message', () => {
    const { repeats, lines } = begin();
    const messages = ['Worker of queue "q1": down', 'Worker of queue "q2": down', 'Worker of queue "q1": up'];
    for (const message of [...messages, ...messages]) repeats.say(message);
    expect(lines).toEqual(messages);
  });

  it('writes what was held back when it is flushed, once', () => {
    const { repeats, lines } = begin();
    repeats.say('a');
    repeats.say('b');
    repeats.say('b');
    repeats.flush();
    repeats.flush();
    vi.advanceTimersByTime(120_000);
    expect(lines).toEqual(['a', 'b', 'b (1 of these within 10 s)']);
  });

  it('does not grow with messages that are all different', () => {
    const { repeats, lines } = begin();
    const letters = (index: number): string =>
      String(index).replaceAll(/\d/g, (digit) => String.fromCharCode(103 + Number(digit)));
    for (let index = 0; index < 10_000; index += 1) repeats.say(`lost ${letters(index)}`);
    expect(lines).toHaveLength(101);
    expect(vi.getTimerCount()).toBe(101);
    repeats.flush();
    expect(lines.at(-1)).toBe(`lost ${letters(9999)} (9899 of these within 10 s)`);
    expect(vi.getTimerCount()).toBe(0);
  });
});
