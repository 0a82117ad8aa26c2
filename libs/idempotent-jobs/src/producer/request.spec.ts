import { describe, expect, it } from 'vitest';
import { UsageError } from '../operation/errors.js';
import { Encryption } from '../ledger/encryption/encryption.js';
import { TenantContext } from '../tenancy/tenant-context.js';
import { requestOperation } from './request.js';
import type { RequestOptions } from './enqueue.options.js';
import type { RequestedOperation } from './operation.store.js';

const SERVICES: Parameters<typeof requestOperation>[4] = {
  tenants: new TenantContext(),
  encryption: new Encryption({}),
  options: {
    enqueue: { maxPayloadBytes: 1_000 },
    retryPolicies: new Map([
      ['charge', {}],
      ['mail', {}],
    ]),
    dispatch: { redispatchAfterMs: 1_000, redispatchMaxMs: 1_000 },
    traceContext: undefined,
    tracing: undefined,
  },
};

function ask(options: Partial<RequestOptions>, services = SERVICES): RequestedOperation {
  return requestOperation(
    'charges',
    'charge',
    { amount: 5 },
    { operationKey: 'charge:1', tenantId: 'acme', ...options },
    services,
  );
}

describe('requestOperation: the retry policy', () => {
  it('is what was asked for, or left to the processor', () => {
    expect(ask({ retryPolicy: 'mail' }).retryPolicy).toBe('mail');
    expect(ask({}).retryPolicy).toBeUndefined();
  });

  it('is no part of the request: the same operation may be asked for under another one', () => {
    expect(ask({ retryPolicy: 'mail' }).fingerprint).toBe(ask({ retryPolicy: 'charge' }).fingerprint);
  });

  it.each([
    ['a slip', 'chrage', '"charge", "mail", but is the string "chrage"'],
    ['the empty text', '', '"charge", "mail", but is the string ""'],
    ['no text', 7 as unknown as string, '"charge", "mail", but is 7'],
    ['null', null as unknown as string, '"charge", "mail", but is null'],
  ])('is refused when it is none of those that are declared: %s', (_what, retryPolicy, problem) => {
    expect(() => ask({ retryPolicy })).toThrow(UsageError);
    expect(() => ask({ retryPolicy })).toThrow(
      `retryPolicy must be one of forRoot({ retryPolicies }), which has ${problem}.`,
    );
  });

  it('is refused where none are declared, and says so', () => {
    expect(() =>
      ask(
        { retryPolicy: 'mail' },
        { ...SERVICES, options: { ...SERVICES.options, retryPolicies: new Map() } },
      ),
    ).toThrow('forRoot({ retryPolicies }), which has none, but is the string "mail"');
  });

  it('does not take what every object has for a policy', () => {
    expect(() => ask({ retryPolicy: 'constructor' })).toThrow(UsageError);
  });
});
