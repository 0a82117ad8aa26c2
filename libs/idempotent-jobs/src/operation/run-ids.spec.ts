import { hostname } from 'node:os';
import { describe, expect, it } from 'vitest';
import { runIds } from './run-ids.js';

describe('runIds', () => {
  it('names runs by host and process, and counts them', () => {
    const next = runIds();
    const [first, second, third] = [next(), next(), next()];
    const process_ = first.slice(0, first.lastIndexOf('/'));
    expect([first, second, third]).toEqual([`${process_}/1`, `${process_}/2`, `${process_}/3`]);
    expect(process_.startsWith(`${hostname()}:${process.pid}:`)).toBe(true);
  });

  it('keeps two processes apart that have the same host name and process id', () => {
    const names = Array.from({ length: 20 }, () => runIds()());
    expect(new Set(names).size).toBe(20);
  });

  it('counts for each process on its own', () => {
    const [one, other] = [runIds(), runIds()];
    one();
    expect(one()).toMatch(/\/2$/);
    expect(other()).toMatch(/\/1$/);
  });
});
