import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { describeError, type ErrorEvidence } from './error-evidence.js';

function trapped(property: string): Error {
  return Object.defineProperty(new Error('trap'), property, {
    get() {
      throw new Error('do not touch');
    },
  });
}

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
