import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { causesOf, describeError, type ErrorEvidence, isA, messageOf, read } from './thrown.js';

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
    ['an error whose message throws', trapped('message'), 'a thrown object'],
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

function causes(evidence: ErrorEvidence): string[] {
  const messages: string[] = [];
  for (let one: ErrorEvidence | undefined = evidence; one !== undefined; one = one.cause) {
    messages.push(one.message);
  }
  return messages;
}

describe('describeError', () => {
  it('keeps name, message, code and stack', () => {
    const error = Object.assign(new RangeError('too much'), {
      code: 'E_TOO_MUCH',
      request: { card: '4111' },
    });
    expect(describeError(error)).toEqual({
      name: 'RangeError',
      message: 'too much',
      code: 'E_TOO_MUCH',
      stack: expect.stringMatching(/^RangeError: too much\n {4}at /),
    });
  });

  it('keeps no code that is not a text', () => {
    const evidence = describeError(Object.assign(new Error('declined'), { code: 23 }));
    expect(evidence).toEqual({ name: 'Error', message: 'declined', stack: expect.any(String) });
  });

  it('keeps the chain of causes', () => {
    const error = new Error('outer', { cause: new TypeError('middle', { cause: 'inner' }) });
    expect(describeError(error)).toMatchObject({
      message: 'outer',
      cause: { name: 'TypeError', message: 'middle', cause: { name: 'string', message: 'inner' } },
    });
  });

  it.each([
    ['a text', 'declined', { name: 'string', message: 'declined' }],
    ['undefined', undefined, { name: 'undefined', message: 'a thrown undefined' }],
    ['null', null, { name: 'object', message: 'a thrown null' }],
    ['a number', 5, { name: 'number', message: '5' }],
    ['a symbol', Symbol('x'), { name: 'symbol', message: 'Symbol(x)' }],
    ['an object', { a: 1 }, { name: 'Object', message: 'a thrown object' }],
    [
      'an object with a status and a code',
      { status: 418, code: 'TEAPOT', message: 'short' },
      { name: 'Object', message: 'short', status: 418, code: 'TEAPOT' },
    ],
    ['an object with a name', { name: 'Refusal' }, { name: 'Refusal', message: 'a thrown object' }],
    [
      'a Response',
      new Response('secret', { status: 503 }),
      { name: 'Response', message: '[object Response]', status: 503 },
    ],
    ['a function', class Odd {}, { name: 'function', message: expect.stringContaining('Odd') }],
    ['an object without a prototype', Object.create(null), { name: 'object', message: 'a thrown object' }],
    [
      'an object whose toString throws',
      {
        toString: () => {
          throw new Error('no');
        },
      },
      { name: 'Object', message: 'a thrown object' },
    ],
  ])('describes what is no error: %s', (_what, thrown, evidence) => {
    expect(describeError(thrown)).toEqual(evidence);
  });

  it('cuts name, message, code and stack to their lengths', () => {
    const error = Object.assign(new Error('m'.repeat(10_001)), {
      code: 'c'.repeat(101),
      name: 'n'.repeat(201),
    });
    error.stack = 's'.repeat(16_001);
    expect(describeError(error)).toEqual({
      name: 'n'.repeat(200),
      message: 'm'.repeat(10_000),
      code: 'c'.repeat(100),
      stack: 's'.repeat(16_000),
    });
  });

  it('cuts a thrown text to the length of a message', () => {
    expect(describeError('x'.repeat(20_000)).message).toHaveLength(10_000);
  });

  it('replaces what Postgres refuses: NUL and halves of surrogate pairs', () => {
    const error = Object.assign(new Error('a\0b\ud800c'), { code: '\0', name: 'N\0\udc00' });
    error.stack = 'at \0\udfff';
    expect(describeError(error)).toEqual({
      name: 'N\u{FFFD}\u{FFFD}',
      message: 'a\u{FFFD}b\u{FFFD}c',
      code: '\u{FFFD}',
      stack: 'at \u{FFFD}\u{FFFD}',
    });
  });

  it('leaves no half of a pair where it cuts', () => {
    const { message } = describeError(new Error(`${'m'.repeat(9_999)}🚀`));
    expect(message).toBe(`${'m'.repeat(9_999)}\u{FFFD}`);
  });

  it.each([
    ['a number', 7, 'Error'],
    ['nothing', undefined, 'Error'],
    ['empty', '', 'Error'],
  ])('goes by the class where the name is %s', (_what, name, text) => {
    expect(describeError(Object.assign(new Error('odd'), { name })).name).toBe(text);
  });

  it('keeps five causes and no more', () => {
    const chain = (depth: number): Error =>
      new Error(`level ${depth}`, depth === 9 ? {} : { cause: chain(depth + 1) });
    expect(causes(describeError(chain(0)))).toEqual([
      'level 0',
      'level 1',
      'level 2',
      'level 3',
      'level 4',
      'level 5',
    ]);
  });

  it('comes to an end with an error that is its own cause', () => {
    const error = new Error('ouroboros');
    error.cause = error;
    expect(causes(describeError(error))).toHaveLength(6);
  });

  it.each([
    ['name', { name: 'Error', message: 'trap' }],
    ['message', { name: 'Error', message: 'a thrown object' }],
    ['code', { name: 'Error', message: 'trap', stack: expect.any(String) }],
    ['status', { name: 'Error', message: 'trap', stack: expect.any(String) }],
    ['stack', { name: 'Error', message: 'trap' }],
    ['cause', { name: 'Error', message: 'trap', stack: expect.any(String) }],
  ])('keeps what can be read where the getter of %s throws', (property, evidence) => {
    expect(describeError(trapped(property))).toMatchObject(evidence);
    expect(describeError(new Error('outer', { cause: trapped(property) })).cause).toMatchObject(evidence);
  });

  it('describes what cannot be looked at at all', () => {
    const { proxy, revoke } = Proxy.revocable({}, {});
    revoke();
    expect(describeError(proxy)).toEqual({ name: 'object', message: 'a thrown object' });
    expect(describeError(new Error('outer', { cause: proxy }))).toMatchObject({
      message: 'outer',
      cause: { name: 'object', message: 'a thrown object' },
    });
  });

  it('keeps the lists and objects that are answered in the place of a message', () => {
    const error = Object.assign(new Error('x'), { message: ['amount must be positive', 'no currency'] });
    expect(describeError(error).message).toBe('["amount must be positive","no currency"]');
  });

  it('describes anything that can be thrown as bounded JSON, and never throws', () => {
    const anything = fc.anything({
      withNullPrototype: true,
      withBigInt: true,
      withMap: true,
      withDate: true,
    });
    fc.assert(
      fc.property(anything, anything, (thrown, cause) => {
        for (const error of [thrown, Object.assign(new Error('x', { cause }), { code: thrown })]) {
          const evidence = describeError(error);
          expect(JSON.parse(JSON.stringify(evidence))).toEqual(evidence);
          expect(evidence.message.length).toBeLessThanOrEqual(10_000);
        }
      }),
    );
  });
});
