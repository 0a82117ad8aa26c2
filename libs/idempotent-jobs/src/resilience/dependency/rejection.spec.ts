import { describe, expect, it } from 'vitest';
import { IdempotentJobsError } from '../../operation/errors.js';
import { classify } from '../classify/classify.js';
import { DependencyRejectedError, type Rejection, rejectionBehind } from './rejection.js';

const HOLD: Rejection = { kind: 'held', dependency: 'gateway', cause: 'circuit_open', retryAfterMs: 1_234.5 };
const held = new DependencyRejectedError(HOLD);

/** An error under so many others. */
function wrapped(error: unknown, times: number): unknown {
  let outer = error;
  for (let depth = 0; depth < times; depth += 1) outer = new Error('wrapped', { cause: outer });
  return outer;
}

describe('DependencyRejectedError', () => {
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

describe('rejectionBehind', () => {
  it('is the hold of the error itself, and of one that it is the cause of', () => {
    expect(rejectionBehind(held)).toBe(HOLD);
    expect(rejectionBehind(wrapped(held, 1))).toBe(HOLD);
    expect(rejectionBehind(new TypeError('typed', { cause: wrapped(held, 2) }))).toBe(HOLD);
  });

  it('looks at ten errors, and at no more', () => {
    expect(rejectionBehind(wrapped(held, 9))).toBe(HOLD);
    expect(rejectionBehind(wrapped(held, 10))).toBeUndefined();
  });

  it('is nothing where no cause is a held call', () => {
    expect(rejectionBehind(new Error('refused'))).toBeUndefined();
    expect(rejectionBehind(wrapped(new Error('refused'), 3))).toBeUndefined();
    for (const nonsense of [undefined, null, 'held', 7, { message: held }, () => held])
      expect(rejectionBehind(nonsense)).toBeUndefined();
  });

  it('is found beneath whatever was thrown, and not for its name or code', () => {
    expect(rejectionBehind({ cause: held })).toBe(held.rejection);
    expect(
      rejectionBehind(
        Object.assign(new Error('x'), { name: held.name, code: held.code, hold: held.rejection }),
      ),
    ).toBeUndefined();
  });

  it('survives what cannot be looked at', () => {
    const { proxy, revoke } = Proxy.revocable({}, {});
    revoke();
    expect(rejectionBehind(proxy)).toBeUndefined();
    expect(rejectionBehind(new Error('outer', { cause: proxy }))).toBeUndefined();
  });

  it('ends with a chain that ends in something else than an error', () => {
    expect(rejectionBehind(new Error('told', { cause: 'held' }))).toBeUndefined();
  });

  it('survives causes that go in a circle', () => {
    const one = new Error('one');
    const other = new Error('other', { cause: one });
    one.cause = other;
    expect(rejectionBehind(one)).toBeUndefined();
    const itself = new Error('itself');
    itself.cause = itself;
    expect(rejectionBehind(itself)).toBeUndefined();
  });
});
