import { describe, expect, it } from 'vitest';
import { IdempotentJobsError } from '../../operation/errors.js';
import { classify } from '../classify/classify.js';
import { DependencyHeldError, type Hold, holdBehind } from './hold.js';

const HOLD: Hold = { kind: 'held', dependency: 'gateway', cause: 'circuit_open', retryAfterMs: 1_234.5 };
const held = new DependencyHeldError(HOLD);

/** An error under so many others. */
function wrapped(error: unknown, times: number): unknown {
  let outer = error;
  for (let depth = 0; depth < times; depth += 1) outer = new Error('wrapped', { cause: outer });
  return outer;
}

describe('DependencyHeldError', () => {
  it('says which dependency, why, that nothing was sent, and when to come again', () => {
    expect(held).toBeInstanceOf(IdempotentJobsError);
    expect(held).toMatchObject({
      code: 'DEPENDENCY_HELD',
      retryAfterMs: 1_234.5,
      data: { dependency: 'gateway', cause: 'circuit_open' },
    });
    expect(held.message).toBe(
      'Dependency "gateway" lets nothing through for now (circuit_open). Nothing was sent; come again in 1235 ms.',
    );
  });

  it('is known for an error without an effect', () => {
    expect(classify(held).kind).toBe('transient');
    expect(classify(wrapped(held, 3)).kind).toBe('transient');
  });
});

describe('holdBehind', () => {
  it('is the hold of the error itself, and of one that it is the cause of', () => {
    expect(holdBehind(held)).toBe(HOLD);
    expect(holdBehind(wrapped(held, 1))).toBe(HOLD);
    expect(holdBehind(new TypeError('typed', { cause: wrapped(held, 2) }))).toBe(HOLD);
  });

  it('looks at ten errors, and at no more', () => {
    expect(holdBehind(wrapped(held, 9))).toBe(HOLD);
    expect(holdBehind(wrapped(held, 10))).toBeUndefined();
  });

  it('is nothing where no cause is a held call', () => {
    expect(holdBehind(new Error('refused'))).toBeUndefined();
    expect(holdBehind(wrapped(new Error('refused'), 3))).toBeUndefined();
    for (const nonsense of [undefined, null, 'held', 7, { message: held }, () => held])
      expect(holdBehind(nonsense)).toBeUndefined();
  });

  it('is found beneath whatever was thrown, and not for its name or code', () => {
    expect(holdBehind({ cause: held })).toBe(held.hold);
    expect(
      holdBehind(Object.assign(new Error('x'), { name: held.name, code: held.code, hold: held.hold })),
    ).toBeUndefined();
  });

  it('survives what cannot be looked at', () => {
    const { proxy, revoke } = Proxy.revocable({}, {});
    revoke();
    expect(holdBehind(proxy)).toBeUndefined();
    expect(holdBehind(new Error('outer', { cause: proxy }))).toBeUndefined();
  });

  it('ends with a chain that ends in something else than an error', () => {
    expect(holdBehind(new Error('told', { cause: 'held' }))).toBeUndefined();
  });

  it('survives causes that go in a circle', () => {
    const one = new Error('one');
    const other = new Error('other', { cause: one });
    one.cause = other;
    expect(holdBehind(one)).toBeUndefined();
    const itself = new Error('itself');
    itself.cause = itself;
    expect(holdBehind(itself)).toBeUndefined();
  });
});
