import { describe, expect, it } from 'vitest';
import type { Effect } from '../operation/effect.js';
import { ConfigurationError } from '../operation/errors.js';
import { type IdempotentProcessorOptions, resolveProcessorOptions } from './processor.options.js';
import type { ProcessorSettings } from './processor.settings.js';

function resolve(options: unknown, leaseMs = 30_000): ProcessorSettings {
  return resolveProcessorOptions('ChargeProcessor', 'charges', options as IdempotentProcessorOptions, {
    leaseMs,
    retentionMs: 1000,
    maxResultBytes: 77,
  });
}

function refusal(options: unknown): string {
  try {
    resolve(options);
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigurationError);
    return (error as Error).message;
  }
  throw new Error('The options were accepted');
}

class ChargeDto {}
class RefundDto {}

describe('resolveProcessorOptions', () => {
  it('fills in the documented defaults, of which the effect is the careful one', () => {
    const settings = resolve({}, 12_000);
    expect(settings).toEqual({
      queue: 'charges',
      effect: 'unrepeatable',
      leaseMs: 12_000,
      timeoutMs: 30_000,
      terms: {
        queue: 'charges',
        effect: 'unrepeatable',
        leaseMs: 12_000,
        repeatableMs: 0,
        retentionMs: 1000,
        budgetMs: null,
      },
      policy: { attempts: 5, crashes: 2, backoff: { baseMs: 1_000, capMs: 300_000 } },
      results: { isStored: true, redact: undefined, maxBytes: 77 },
      identify: undefined,
      classify: undefined,
      payloadClassOf: expect.any(Function),
    });
    expect(settings.payloadClassOf('charge')).toBeUndefined();
  });

  it('takes everything that is given', () => {
    const identify = () => ({ tenantId: 'acme', operationKey: 'k' });
    const classify = () => 'transient' as const;
    const redact = () => undefined;
    expect(
      resolve({
        effect: 'keyed',
        keyRetentionMs: 3_600_000,
        timeoutMs: 2_147_483_647,
        timeBudgetMs: 90_000,
        leaseMs: 500,
        retry: { attempts: 1, crashes: 1, backoff: { baseMs: 10, capMs: 20 } },
        identify,
        classify,
        storeResult: false,
        redact,
      }),
    ).toMatchObject({
      effect: 'keyed',
      leaseMs: 500,
      timeoutMs: 2_147_483_647,
      terms: {
        queue: 'charges',
        effect: 'keyed',
        leaseMs: 500,
        repeatableMs: 3_600_000,
        budgetMs: 90_000,
      },
      policy: { attempts: 1, crashes: 1, backoff: { baseMs: 10, capMs: 20 } },
      results: { isStored: false, redact, maxBytes: 77 },
      identify,
      classify,
    });
  });

  it('fills in the half of a backoff that was left out', () => {
    expect(resolve({ retry: { backoff: { capMs: 7 } } }).policy.backoff).toEqual({ baseMs: 1_000, capMs: 7 });
    expect(resolve({ retry: { backoff: { baseMs: 7 } } }).policy.backoff).toEqual({
      baseMs: 7,
      capMs: 300_000,
    });
  });

  it.each<[Effect, number | null]>([
    ['natural', null],
    ['transactional', null],
    ['keyed', 86_400_000],
    ['unrepeatable', 0],
  ])('knows for how long a %s effect is repeatable: %s', (effect, repeatableMs) => {
    expect(resolve({ effect }).terms.repeatableMs).toBe(repeatableMs);
  });

  it('takes one payload class for all jobs', () => {
    const { payloadClassOf } = resolve({ payload: ChargeDto });
    expect(payloadClassOf('charge')).toBe(ChargeDto);
    expect(payloadClassOf('anything')).toBe(ChargeDto);
  });

  it('takes a payload class for each job name, and none for names it does not know', () => {
    const { payloadClassOf } = resolve({ payload: { charge: ChargeDto, refund: RefundDto } });
    expect(payloadClassOf('charge')).toBe(ChargeDto);
    expect(payloadClassOf('refund')).toBe(RefundDto);
    for (const name of ['other', 'constructor', 'toString', '__proto__', '']) {
      expect(payloadClassOf(name)).toBeUndefined();
    }
  });

  it.each([
    [
      { effect: 'idempotent' },
      'effect is "idempotent", but must be one of "natural", "transactional", "keyed", "unrepeatable"',
    ],
    [
      { effect: 'natural', keyRetentionMs: 5 },
      'keyRetentionMs is 5, but must be left out unless effect is "keyed"',
    ],
    [{ effect: 'keyed', keyRetentionMs: 0 }, 'keyRetentionMs is 0, but must be a number greater than 0'],
    [
      { timeoutMs: 0 },
      'timeoutMs is 0, but must be a number of milliseconds from 1 to 2147483647 (24.8 days)',
    ],
    [
      { timeoutMs: 2_147_483_648 },
      'timeoutMs is 2147483648, but must be a number of milliseconds from 1 to 2147483647 (24.8 days)',
    ],
    [{ timeBudgetMs: -1 }, 'timeBudgetMs is -1, but must be a number greater than 0'],
    [
      { leaseMs: 499 },
      'leaseMs is 499, but must be a number of milliseconds from 500 to 2147483647 (24.8 days)',
    ],
    [{ payload: null }, 'payload is null, but must be a DTO class, or an object of DTO classes by job name'],
    [
      { payload: 'ChargeDto' },
      'payload is "ChargeDto", but must be a DTO class, or an object of DTO classes by job name',
    ],
    [
      { payload: { charge: ChargeDto, refund: undefined } },
      'payload.refund is undefined, but must be a DTO class; an import cycle makes it undefined while decorators run',
    ],
    [
      { payload: { charge: { amount: 'number' } } },
      'payload.charge is [object Object], but must be a DTO class; an import cycle makes it undefined while decorators run',
    ],
    [{ identify: 'tenantId' }, 'identify is "tenantId", but must be a function'],
    [{ classify: 'transient' }, 'classify is "transient", but must be a function'],
    [{ classify: null }, 'classify is null, but must be a function'],
    [{ retry: { attempts: 0 } }, 'retry.attempts is 0, but must be a whole number greater than 0'],
    [{ clientRetries: -1 }, 'clientRetries is -1, but must be a whole number of at least 0'],
    [{ clientRetries: 0.5 }, 'clientRetries is 0.5, but must be a whole number of at least 0'],
    [{ retry: { attempts: 2.5 } }, 'retry.attempts is 2.5, but must be a whole number greater than 0'],
    [{ retry: { crashes: '2' } }, 'retry.crashes is "2", but must be a whole number greater than 0'],
    [
      { retry: { backoff: { baseMs: NaN } } },
      'retry.backoff.baseMs is NaN, but must be a number greater than 0',
    ],
    [{ retry: { backoff: { capMs: 0 } } }, 'retry.backoff.capMs is 0, but must be a number greater than 0'],
  ])('refuses %o by name, value and what it must be', (options, problem) => {
    expect(refusal(options)).toBe(`@IdempotentProcessor("charges") on ChargeProcessor: ${problem}.`);
  });

  it('tells everything that is wrong at once', () => {
    const message = refusal({ effect: 'none', timeoutMs: -1, leaseMs: 1, retry: { attempts: 0 } });
    for (const option of ['effect is "none"', 'timeoutMs is -1', 'leaseMs is 1', 'retry.attempts is 0']) {
      expect(message).toContain(option);
    }
    expect(message.split('; ')).toHaveLength(4);
  });
});
