import { hostname } from 'node:os';
import { describe, expect, it } from 'vitest';
import { workerIdentity } from './worker-identity.js';

describe('workerIdentity', () => {
  it('names runs by host and process, and counts them', () => {
    const next = workerIdentity();
    const [first, second, third] = [next(), next(), next()];
    const process_ = first.slice(0, first.lastIndexOf('/'));
    expect([first, second, third]).toEqual([`${process_}/1`, `${process_}/2`, `${process_}/3`]);
    expect(process_.startsWith(`${hostname()}:${process.pid}:`)).toBe(true);
  });

  it('keeps two processes apart that have the same host name and process id', () => {
    const names = Array.from({ length: 20 }, () => workerIdentity()());
    expect(new Set(names).size).toBe(20);
  });

  it('counts for each process on its own', () => {
    const [one, other] = [workerIdentity(), workerIdentity()];
    one();
    expect(one()).toMatch(/\/2$/);
    expect(other()).toMatch(/\/1$/);
  });
});
