import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { messageOf } from './message-of.js';

const trap = (property: string): object =>
  Object.defineProperty(new Error('trap'), property, {
    get() {
      throw new Error('do not touch');
    },
  });

function revoked(): object {
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  return proxy;
}

describe('messageOf', () => {
  it.each([
    ['an error', new RangeError('too much'), 'too much'],
    ['an error without a message', new Error(), ''],
    ['an error of another realm', { name: 'Error', message: 'declined' }, 'declined'],
    ['a text', 'no luck', 'no luck'],
    ['a number', 42, '42'],
    ['a bigint', 5n, '5'],
    ['a symbol', Symbol('odd'), 'Symbol(odd)'],
    ['an object', { reason: 'declined' }, 'a thrown object'],
    ['an object whose message is no text', { message: { text: 'declined' } }, '{"text":"declined"}'],
    [
      'an object whose message is a list',
      { message: ['no amount', 'no currency'] },
      '["no amount","no currency"]',
    ],
    ['an object whose message JSON cannot write', { message: 5n }, 'a thrown object'],
    ['a NUL and half of a pair', new Error('a\0b\ud800'), 'a\u{FFFD}b\u{FFFD}'],
    ['null', null, 'a thrown null'],
    ['undefined', undefined, 'a thrown undefined'],
    ['an object without a prototype', Object.create(null), 'a thrown object'],
    ['an error whose message throws', trap('message'), 'a thrown object'],
    ['a revoked proxy', revoked(), 'a thrown object'],
    [
      'an object whose toString throws',
      {
        toString: () => {
          throw new Error('no');
        },
      },
      'a thrown object',
    ],
  ])('tells what %s says', (_what, thrown, message) => {
    expect(messageOf(thrown)).toBe(message);
  });

  it('is cut to what people read', () => {
    expect(messageOf(new Error('m'.repeat(2_001)))).toBe('m'.repeat(2_000));
    expect(messageOf('m'.repeat(2_001))).toHaveLength(2_000);
    expect(messageOf({ message: ['m'.repeat(5_000)] })).toHaveLength(2_000);
  });

  it('never throws and always answers a text, whatever was thrown', () => {
    const anything = fc.anything({
      withNullPrototype: true,
      withBigInt: true,
      withMap: true,
      withDate: true,
      withObjectString: true,
    });
    fc.assert(
      fc.property(anything, (thrown) => {
        expect(messageOf(thrown)).toBeTypeOf('string');
        expect(messageOf({ message: thrown })).toBeTypeOf('string');
      }),
    );
  });
});
