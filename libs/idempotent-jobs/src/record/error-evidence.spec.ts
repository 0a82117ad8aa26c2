import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { describeError, type ErrorEvidence } from './error-evidence.js';

const UNREADABLE = { name: 'Error', message: 'The error could not be described: reading it throws.' };

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
    ['undefined', undefined, { name: 'undefined', message: 'undefined' }],
    ['null', null, { name: 'object', message: 'null' }],
    ['a number', 5, { name: 'number', message: '5' }],
    ['a symbol', Symbol('x'), { name: 'symbol', message: 'Symbol(x)' }],
    ['an object', { a: 1 }, { name: 'object', message: '[object Object]' }],
    ['an object without a prototype', Object.create(null), UNREADABLE],
    [
      'an object whose toString throws',
      {
        toString: () => {
          throw new Error('no');
        },
      },
      UNREADABLE,
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
    ['a number', 7, '7'],
    ['nothing', undefined, 'undefined'],
  ])('makes a text of a name that is %s', (_what, name, text) => {
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

  it.each(['name', 'message', 'code', 'stack', 'cause'])('survives a getter that throws: %s', (property) => {
    const error = new Error('trap');
    Object.defineProperty(error, property, {
      get() {
        throw new Error('do not touch');
      },
    });
    expect(describeError(error)).toEqual(UNREADABLE);
  });

  it('keeps what can be read when only a cause cannot', () => {
    const trap = new Error('trap');
    Object.defineProperty(trap, 'message', {
      get() {
        throw new Error('do not touch');
      },
    });
    expect(describeError(new Error('outer', { cause: trap }))).toMatchObject({
      message: 'outer',
      cause: UNREADABLE,
    });
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
