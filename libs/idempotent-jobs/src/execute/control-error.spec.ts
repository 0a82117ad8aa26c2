import { DelayedError, RateLimitError, UnrecoverableError, WaitingChildrenError, WaitingError } from 'bullmq';
import { describe, expect, it } from 'vitest';
import { isControlError } from './control-error.js';

describe('isControlError', () => {
  it.each([
    ['DelayedError', new DelayedError()],
    ['DelayedError with a message of its own', new DelayedError('see you')],
    ['WaitingError', new WaitingError()],
    ['WaitingChildrenError', new WaitingChildrenError()],
    ['RateLimitError', new RateLimitError()],
    ['an error with the message that Worker.RateLimitError has', new Error('bullmq:rateLimitExceeded')],
    [
      'a DelayedError of another copy of BullMQ',
      Object.assign(new Error('bullmq:movedToDelayed'), { name: 'DelayedError' }),
    ],
  ])('knows %s', (_what, error) => {
    expect(isControlError(error)).toBe(true);
  });

  it.each([
    ['UnrecoverableError, which is about failing', new UnrecoverableError()],
    ['any other error', new Error('DelayedError')],
    ['a text', 'bullmq:rateLimitExceeded'],
    ['an object with the name', { name: 'DelayedError' }],
    ['undefined', undefined],
    ['null', null],
  ])('does not take for one: %s', (_what, error) => {
    expect(isControlError(error)).toBe(false);
  });
});
