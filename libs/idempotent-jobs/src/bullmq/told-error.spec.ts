import { UnrecoverableError } from 'bullmq';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { toldError, toldFinalError } from './told-error.js';

describe('what BullMQ is told of an error', () => {
  it.each([
    'bullmq:rateLimitExceeded',
    'bullmq:movedToDelayed',
    'job stalled more than allowable limit',
    'job started more than allowable limit',
    'child bull:refunds:17 failed',
  ])('never reads like its own words: %s', (words) => {
    expect(toldError(new Error(words)).message).toBe(`Error: ${words}`);
    expect(toldFinalError(words).message).toBe(`Error: ${words}`);
  });

  it.each(['DelayedError', 'WaitingError', 'WaitingChildrenError', 'RateLimitError', 'UnrecoverableError'])(
    'never has the name of an error that it acts on: %s',
    (name) => {
      expect(toldError(Object.assign(new Error('x'), { name })).name).toBe('Error');
    },
  );

  it('is of the class that it never tries again, where it is final', () => {
    const error = Object.assign(new Error('x'), { name: 'BankError' });
    expect(toldFinalError(error)).toBeInstanceOf(UnrecoverableError);
    expect(toldFinalError(error).name).toBe('UnrecoverableError');
    expect(toldError(new UnrecoverableError('x'))).not.toBeInstanceOf(UnrecoverableError);
  });

  it('is short, clean text, whatever was thrown', () => {
    const text = fc.oneof(fc.string({ unit: 'binary' }), fc.constant('\0\ud800'.repeat(9_000)));
    fc.assert(
      fc.property(fc.anything({ withNullPrototype: true }), text, text, (odd, message, stack) => {
        for (const thrown of [
          odd,
          Object.assign(new Error('x'), { message: odd, name: odd }),
          errorOf(message, stack),
        ]) {
          for (const told of [toldError(thrown), toldFinalError(thrown)]) {
            const texts = [told.message, told.stack as string, told.name];
            expect(texts.every((one) => one.isWellFormed() && !one.includes('\0'))).toBe(true);
            expect(told.message.length).toBeLessThanOrEqual(2_000);
            expect((told.stack as string).length).toBeLessThanOrEqual(4_000);
          }
        }
      }),
    );
  });
});

function errorOf(message: string, stack: string): Error {
  return Object.assign(new Error(message), { stack });
}
