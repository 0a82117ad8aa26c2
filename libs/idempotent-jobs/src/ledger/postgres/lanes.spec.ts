import { describe, expect, it } from 'vitest';
import { handlerPlaces, type Places } from './lanes.js';

async function taken(share: Places<'handler'>): Promise<() => void> {
  return (await share.take('handler', 60_000)) as () => void;
}

describe('handlerPlaces', () => {
  it('leaves four connections of the pool free and hands the others on in order', async () => {
    const share = handlerPlaces(6);
    const first = await taken(share);
    const second = await taken(share);
    const turns: string[] = [];
    const third = taken(share).then((release) => {
      turns.push('third');
      return release;
    });
    const fourth = taken(share).then((release) => {
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
    const share = handlerPlaces(2);
    const release = await taken(share);
    let isTaken = false;
    const second = taken(share).then(() => (isTaken = true));
    await Promise.resolve();
    expect(isTaken).toBe(false);
    release();
    await second;
  });

  it('is waited for no longer than patience, or an attempt, lasts, and hands nothing to those that have left', async () => {
    const share = handlerPlaces(5);
    const release = await taken(share);
    const { signal, abort } = abortable();
    expect(await share.take('handler', 1)).toBeUndefined();
    const waiting = share.take('handler', 60_000, () => signal);
    abort();
    expect(await waiting).toBeUndefined();
    expect(await share.take('handler', 60_000, () => signal)).toBeUndefined();
    release();
    (await taken(share))();
  });

  it('asks for no signal where there is nothing to wait for', async () => {
    const share = handlerPlaces(5);
    expect(await share.take('handler', 1, () => expect.fail('asked'))).toBeTypeOf('function');
  });
});

function abortable(): { signal: AbortSignal; abort: () => void } {
  const controller = new AbortController();
  return { signal: controller.signal, abort: () => controller.abort() };
}
