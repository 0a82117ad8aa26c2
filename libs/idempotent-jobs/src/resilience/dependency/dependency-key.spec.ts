import { describe, expect, it } from 'vitest';
import { KeyedCircuits } from './dependency-key.js';

class Circuit {
  isIdle = true;
}

function known(maxKeys: number, ...keys: string[]): KeyedCircuits<Circuit> {
  const circuits = new KeyedCircuits(maxKeys, () => new Circuit());
  for (const key of keys) circuits.of(key);
  return circuits;
}

describe('the circuits of keys', () => {
  it('are made once each, and found again', () => {
    const circuits = known(2, 'a', 'b');
    const [a, b] = [...circuits.all];
    expect(circuits.of('b')).toBe(b);
    expect(circuits.of('a')).toBe(a);
    expect(a).not.toBe(b);
  });

  it('forget the key that was not used for longest', () => {
    const circuits = known(2, 'a', 'b');
    const a = circuits.of('a');
    circuits.of('c');
    expect(circuits.of('a')).toBe(a);
    expect([...circuits.all]).toHaveLength(2);
  });

  it('forget what is idle first, and the oldest of all where nothing is', () => {
    const circuits = known(2, 'a', 'b');
    const a = circuits.of('a');
    const b = circuits.of('b');
    a.isIdle = false;
    const c = circuits.of('c');
    expect([...circuits.all]).toEqual([a, c]);
    c.isIdle = false;
    const d = circuits.of('d');
    expect([...circuits.all]).toEqual([c, d]);
    expect(circuits.of('b')).not.toBe(b);
  });
});
