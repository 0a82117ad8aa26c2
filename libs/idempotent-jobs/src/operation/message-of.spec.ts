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
    ['an object', { reason: 'declined' }, '[object Object]'],
    ['an object whose message is no text', { message: { text: 'declined' } }, '[object Object]'],
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
