import { describe, expect, it } from 'vitest';
import { BACKOFF_TYPE, backoffStrategy, CARRIED_ATTEMPTS, withDelay } from './error-for-bullmq.js';

describe('the retry carrier', () => {
  it('gives back the delay that was noted for an error, however many attempts BullMQ has counted', () => {
    const error = new Error('later');
    withDelay(error, 12_345);
    expect(backoffStrategy(1, BACKOFF_TYPE, error)).toBe(12_345);
    expect(backoffStrategy(900, BACKOFF_TYPE, error)).toBe(12_345);
  });

  it('carries a delay of zero as zero', () => {
    const error = new Error('now');
    withDelay(error, 0);
    expect(backoffStrategy(1, BACKOFF_TYPE, error)).toBe(0);
  });

  it('keeps the delays of two errors with the same message apart', () => {
    const [one, other] = [new Error('same'), new Error('same')];
    withDelay(one, 1);
    withDelay(other, 2);
    expect([one, other].map((error) => backoffStrategy(1, BACKOFF_TYPE, error))).toEqual([1, 2]);
  });

  it('takes the last delay noted for an error', () => {
    const error = new Error('twice');
    withDelay(error, 10);
    withDelay(error, 20);
    expect(backoffStrategy(1, BACKOFF_TYPE, error)).toBe(20);
  });

  it.each([
    ['an error nobody decided about', new Error('stray')],
    ['no error', undefined],
  ])('pauses for a second for %s', (_what, error) => {
    expect(backoffStrategy(1, BACKOFF_TYPE, error)).toBe(1_000);
  });

  it('adds nothing to the error', () => {
    const error = new Error('clean');
    const before = Reflect.ownKeys(error);
    withDelay(error, 5);
    expect(Reflect.ownKeys(error)).toEqual(before);
  });

  it('carries more attempts than a policy will ever have', () => {
    expect(CARRIED_ATTEMPTS).toBeGreaterThanOrEqual(10_000);
  });

  it('keeps the backoff type that jobs in queues already name', () => {
    expect(BACKOFF_TYPE).toBe('idempotent-jobs');
  });
});
