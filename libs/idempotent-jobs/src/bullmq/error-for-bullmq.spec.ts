import { UnrecoverableError } from 'bullmq';
import { describe, expect, it } from 'vitest';
import { errorForBullmq, finalErrorForBullmq } from './error-for-bullmq.js';

describe('what BullMQ is told of an error', () => {
  it.each([
    'bullmq:rateLimitExceeded',
    'bullmq:movedToDelayed',
    'job stalled more than allowable limit',
    'job started more than allowable limit',
    'child bull:refunds:17 failed',
  ])('never reads like its own words: %s', (words) => {
    expect(errorForBullmq(new Error(words)).message).toBe(`Error: ${words}`);
    expect(finalErrorForBullmq(words).message).toBe(`Error: ${words}`);
  });

  it.each(['DelayedError', 'WaitingError', 'WaitingChildrenError', 'RateLimitError', 'UnrecoverableError'])(
    'never has the name of an error that it acts on: %s',
    (name) => {
      expect(errorForBullmq(Object.assign(new Error('x'), { name })).name).toBe('Error');
    },
  );

  it('is of the class that it never tries again, where it is final', () => {
    const error = Object.assign(new Error('x'), { name: 'BankError' });
    expect(finalErrorForBullmq(error)).toBeInstanceOf(UnrecoverableError);
    expect(finalErrorForBullmq(error).name).toBe('UnrecoverableError');
    expect(errorForBullmq(new UnrecoverableError('x'))).not.toBeInstanceOf(UnrecoverableError);
  });

  it('is short, clean text, whatever was thrown', () => {
    const huge = '\0\ud800x'.repeat(9_000);
    const odd = [undefined, null, 7, 7n, huge, [huge], { message: huge }, Object.create(null), new Map()];
    const thrown = [
      ...odd,
      ...odd.map((value) => Object.assign(new Error('x'), { message: value, name: value })),
      ...odd.map((value) => Object.assign(new Error('x'), { stack: value, code: value })),
    ];
    for (const told of thrown.flatMap((value) => [errorForBullmq(value), finalErrorForBullmq(value)])) {
      const texts = [told.message, told.stack as string, told.name];
      expect(texts.every((text) => text.isWellFormed() && !text.includes('\0'))).toBe(true);
      expect(told.message.length).toBeLessThanOrEqual(2_000);
      expect((told.stack as string).length).toBeLessThanOrEqual(4_000);
    }
  });
});
