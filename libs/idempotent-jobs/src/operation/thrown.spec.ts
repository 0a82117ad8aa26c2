import { describe, expect, it } from 'vitest';
import { causesOf, isA, read } from './thrown.js';

function revoked(): object {
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  return proxy;
}

const trapped = (property: string): Error =>
  Object.defineProperty(new Error('trap'), property, {
    get() {
      throw new Error('do not touch');
    },
  });

describe('isA', () => {
  it('tells a class, and not by name', () => {
    expect(isA(new RangeError('x'), Error)).toBe(true);
    expect(isA(Object.assign(new Error('x'), { name: 'RangeError' }), RangeError)).toBe(false);
  });

  it('is false, and throws nothing, for whatever is none', () => {
    for (const value of [undefined, null, 'Error', 7, revoked(), Object.create(null)])
      expect(isA(value, Error)).toBe(false);
  });
});

describe('read', () => {
  it('reads a property of whatever was thrown', () => {
    expect(read({ code: 'E' }, 'code')).toBe('E');
    expect(read(() => undefined, 'name')).toBeDefined();
  });

  it('is undefined, and throws nothing, where it cannot be read', () => {
    for (const value of [undefined, null, 'text', 7, revoked(), trapped('code')])
      expect(read(value, 'code')).toBeUndefined();
  });
});

describe('causesOf', () => {
  it('walks down, outermost first', () => {
    const inner = new Error('inner');
    const outer = { cause: new Error('middle', { cause: inner }) };
    expect(causesOf(outer)).toEqual([outer, outer.cause, inner]);
  });

  it('comes to an end in a circle', () => {
    const one = new Error('one');
    const other = new Error('other', { cause: one });
    one.cause = other;
    expect(causesOf(one)).toEqual([one, other]);
  });

  it('looks at ten and no more', () => {
    const chain = (depth: number): Error => new Error('x', depth === 0 ? {} : { cause: chain(depth - 1) });
    expect(causesOf(chain(20))).toHaveLength(10);
  });

  it.each([undefined, null])('is empty for %s', (nothing) => {
    expect(causesOf(nothing)).toEqual([]);
  });

  it('ends where a cause cannot be read', () => {
    const trap = trapped('cause');
    expect(causesOf(new Error('outer', { cause: trap }))).toHaveLength(2);
    expect(causesOf(revoked())).toHaveLength(1);
  });
});
