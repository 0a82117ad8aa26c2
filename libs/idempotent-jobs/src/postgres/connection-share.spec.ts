import { describe, expect, it } from 'vitest';
import { ConnectionShare } from './connection-share.js';

describe('ConnectionShare', () => {
  it('leaves four connections of the pool free and hands the others on in order', async () => {
    const share = new ConnectionShare(6);
    const first = await share.take();
    const second = await share.take();
    const turns: string[] = [];
    const third = share.take().then((release) => {
      turns.push('third');
      return release;
    });
    const fourth = share.take().then((release) => {
      turns.push('fourth');
      return release;
    });
    await Promise.resolve();
    expect(turns).toEqual([]);
    first();
    first();
    await third;
    expect(turns).toEqual(['third']);
    second();
    await fourth;
    expect(turns).toEqual(['third', 'fourth']);
  });

  it('gives one connection to a pool that has few', async () => {
    const share = new ConnectionShare(2);
    const release = await share.take();
    let isTaken = false;
    const second = share.take().then(() => (isTaken = true));
    await Promise.resolve();
    expect(isTaken).toBe(false);
    release();
    await second;
  });
});
