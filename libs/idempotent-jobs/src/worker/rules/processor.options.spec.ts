import { describe, expect, it } from 'vitest';
import { provenanceOf } from '../../producer/envelope.js';
import { type Effect, EFFECTS } from '../../operation/effect.js';
import { jobIdOf } from '../../operation/identity.js';
import type { Job } from 'bullmq';
import { Dependencies } from '../../resilience/dependency/dependencies.js';
import { resolveDependencies } from '../../resilience/dependency/dependency.options.js';
import { JobEvents } from '../../events/job-events.js';
import { ConfigurationError } from '../../operation/errors.js';
import { optionChecks } from '../../option-checks/option-checks.js';
import { type IdempotentProcessorOptions, resolveProcessorOptions } from './processor.options.js';
import type { RulesByPolicy, ProcessorRules } from './operation-rules.js';
import { resolvePolicies } from './retry.options.js';

const POLICIES = resolvePolicies(optionChecks('test'), {
  charge: { attempts: 7, timeoutMs: 4_000, timeBudgetMs: 60_000, crashes: 3 },
  mail: { attempts: 2, backoff: { jitter: 'decorrelated' } },
});

const DEPENDENCIES = new Dependencies(
  { dependencies: resolveDependencies(optionChecks('test'), { gateway: { timeoutMs: 2_500 }, mailer: {} }) },
  new JobEvents(),
);

function resolveAll(
  options: unknown,
  { leaseMs = 30_000, canReconcile = false, hasFallback = false } = {},
): RulesByPolicy {
  return resolveProcessorOptions(
    'ChargeProcessor',
    { queue: 'charges', options: options as IdempotentProcessorOptions, canReconcile, hasFallback },
    {
      leaseMs,
      retentionMs: 1000,
      results: { maxBytes: 77 },
      retryPolicies: POLICIES,
      dependencies: DEPENDENCIES,
    },
  );
}

function resolve(options: unknown, leaseMs = 30_000, canReconcile = false): ProcessorRules {
  return resolveAll(options, { leaseMs, canReconcile }).own;
}

function refusal(options: unknown, canReconcile = false, hasFallback = false): string {
  try {
    resolveAll(options, { canReconcile, hasFallback });
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
    const rules = resolve({}, 12_000);
    expect(rules).toEqual({
      queue: 'charges',
      effect: 'unrepeatable',
      timeoutMs: 30_000,
      isOptimistic: false,
      claim: {
        queue: 'charges',
        origin: 'job',
        effect: 'unrepeatable',
        leaseMs: 12_000,
        repeatableMs: 0,
        retentionMs: 1000,
        budgetMs: null,
        canReconcile: false,
      },
      policy: {
        attempts: 5,
        crashes: 2,
        backoff: { baseMs: 1_000, capMs: 300_000 },
        schedule: undefined,
        isCallers: false,
      },
      reconcile: undefined,
      dependency: undefined,
      hasFallback: false,
      results: { isStored: true, redact: undefined, maxBytes: 77 },
      identify: undefined,
      doubtsEarlierStarts: true,
      // What guarded calls know of errors.
      classify: expect.any(Function),
      jobNames: [],
      payloadRuleOf: expect.any(Function),
    });
    expect(rules.payloadRuleOf('charge')).toEqual({ kind: 'any' });
  });

  it('takes everything that is given', () => {
    const identify = () => ({ tenantId: 'acme', operationKey: 'k' });
    const classify = () => 'transient' as const;
    const redact = () => undefined;
    const rules = resolve({
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
    });
    expect(rules).toMatchObject({
      effect: 'keyed',
      timeoutMs: 2_147_483_647,
      claim: {
        queue: 'charges',
        origin: 'job',
        effect: 'keyed',
        leaseMs: 500,
        repeatableMs: 3_600_000,
        budgetMs: 90_000,
      },
      policy: { attempts: 1, crashes: 1, backoff: { baseMs: 10, capMs: 20 } },
      results: { isStored: false, redact, maxBytes: 77 },
      identify,
    });
    expect(rules.classify?.(new Error('any'))).toBe('transient');
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
    ['reconciled', 0],
    ['unrepeatable', 0],
  ])('knows for how long a %s effect is repeatable: %s', (effect, repeatableMs) => {
    const canReconcile = effect === 'reconciled';
    expect(resolve({ effect }, 30_000, canReconcile).claim.repeatableMs).toBe(repeatableMs);
  });

  it('takes one payload class for all jobs', () => {
    const { payloadRuleOf } = resolve({ payload: ChargeDto });
    expect(payloadRuleOf('charge')).toEqual({ kind: 'validated', dto: ChargeDto });
    expect(payloadRuleOf('anything')).toEqual({ kind: 'validated', dto: ChargeDto });
  });

  it('takes a payload class for each job name, and none for names it does not know', () => {
    const { payloadRuleOf } = resolve({ payload: { charge: ChargeDto, refund: RefundDto } });
    expect(payloadRuleOf('charge')).toEqual({ kind: 'validated', dto: ChargeDto });
    expect(payloadRuleOf('refund')).toEqual({ kind: 'validated', dto: RefundDto });
    for (const name of ['other', 'constructor', 'toString', '__proto__', '']) {
      expect(payloadRuleOf(name)).toEqual({ kind: 'unlisted' });
    }
  });

  it.each([
    ['unrepeatable', undefined, true],
    ['unrepeatable', 'run', false],
    ['natural', undefined, false],
    ['keyed', 'doubt', false],
  ] as const)('of effect %s with startedElsewhere %s, doubts earlier starts: %s', (effect, given, doubts) => {
    const startedElsewhere = given === undefined ? {} : { startedElsewhere: given };
    expect(resolve({ effect, ...startedElsewhere }).doubtsEarlierStarts).toBe(doubts);
  });

  it('takes any payload of a job that is not listed, where it is told to', () => {
    const { payloadRuleOf } = resolve({ payload: { charge: ChargeDto }, unlistedPayloads: 'accept' });
    expect(payloadRuleOf('charge')).toEqual({ kind: 'validated', dto: ChargeDto });
    expect(payloadRuleOf('constructor')).toEqual({ kind: 'any' });
  });

  it.each([
    [
      { effect: 'idempotent' },
      'effect is "idempotent", but must be one of "natural", "transactional", "keyed", "reconciled", "unrepeatable"',
    ],
    [
      { effect: 'natural', keyRetentionMs: 5 },
      'keyRetentionMs is 5, but must be left out unless effect is "keyed"',
    ],
    [
      { effect: 'unrepeatable', keyRetentionMs: 5 },
      'keyRetentionMs is 5, but must be left out unless effect is "keyed"',
    ],
    [
      { effect: 'keyed', optimistic: true },
      'optimistic is true, but must be left out unless effect is "natural", which may be repeated at any time',
    ],
    [{ effect: 'natural', optimistic: 'yes' }, 'optimistic is "yes", but must be true or false'],
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
    [{ startedElsewhere: 'maybe' }, 'startedElsewhere is "maybe", but must be "doubt" or "run"'],
    [
      { payload: { charge: ChargeDto }, unlistedPayloads: true },
      'unlistedPayloads is true, but must be "refuse" or "accept"',
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

describe('resolveProcessorOptions: reconcile', () => {
  const SECOND = 1_000;
  const HOUR = 3_600_000;

  it.each(['reconciled', 'keyed'] as const)(
    'fills in the documented defaults for a %s effect of a class with a reconcile()',
    (effect) => {
      const schedule = {
        afterMs: [5 * SECOND, 15 * SECOND, 60 * SECOND, 300 * SECOND, 1_800 * SECOND],
        thenEveryMs: HOUR,
        untilMs: 24 * HOUR,
        lateArrivalMs: 0,
      };
      const rules = resolve({ effect }, 30_000, true);
      expect(rules.reconcile).toEqual({ schedule, timeoutMs: 10_000 });
      expect(rules.policy.schedule).toEqual(schedule);
      expect(rules.claim.canReconcile).toBe(true);
    },
  );

  it('takes everything that is given, and plans and asks by it', () => {
    const schedule = { afterMs: [0.5, 200], thenEveryMs: 3_000, untilMs: 60_000, lateArrivalMs: 59_999 };
    const rules = resolve({ effect: 'reconciled', reconcile: { ...schedule, timeoutMs: 1 } }, 30_000, true);
    expect(rules).toMatchObject({ reconcile: { schedule, timeoutMs: 1 }, policy: { schedule } });
  });

  it('takes a schedule without first questions', () => {
    const rules = resolve({ effect: 'keyed', reconcile: { afterMs: [] } }, 30_000, true);
    expect(rules.policy.schedule).toMatchObject({ afterMs: [], thenEveryMs: HOUR });
  });

  it('asks nobody where the class has no reconcile(), also for a keyed effect', () => {
    expect(resolve({ effect: 'keyed' })).toMatchObject({
      reconcile: undefined,
      claim: { canReconcile: false },
      policy: { schedule: undefined },
    });
  });

  const UNCALLED = '"reconciled" or "keyed", because only these call the reconcile() of the class';
  const UNASKED = 'another one, or the class needs a method reconcile(operation) { … }';

  /** What is wrong with an effect, for a class with a reconcile() and for one without; undefined: nothing. */
  const FIT: Record<Effect, { withIt: string | undefined; without: string | undefined }> = {
    natural: { withIt: `effect is "natural", but must be ${UNCALLED}`, without: undefined },
    transactional: { withIt: `effect is "transactional", but must be ${UNCALLED}`, without: undefined },
    keyed: { withIt: undefined, without: undefined },
    reconciled: { withIt: undefined, without: `effect is "reconciled", but must be ${UNASKED}` },
    unrepeatable: { withIt: `effect is "unrepeatable", but must be ${UNCALLED}`, without: undefined },
  };

  it.each(
    EFFECTS.flatMap((effect) => [
      { effect, canReconcile: true, problem: FIT[effect].withIt },
      { effect, canReconcile: false, problem: FIT[effect].without },
    ]),
  )('$effect, with a reconcile() $canReconcile: $problem', ({ effect, canReconcile, problem }) => {
    if (problem === undefined) expect(resolve({ effect }, 30_000, canReconcile).effect).toBe(effect);
    else
      expect(refusal({ effect }, canReconcile)).toBe(
        `@IdempotentProcessor("charges") on ChargeProcessor: ${problem}.`,
      );
  });

  it('refuses a class with a reconcile() that declares no effect, because the careful one never calls it', () => {
    expect(refusal({}, true)).toContain('effect is "unrepeatable", but must be "reconciled" or "keyed"');
  });

  it.each(EFFECTS)('refuses reconcile options of a %s effect without a reconcile()', (effect) => {
    expect(refusal({ effect, reconcile: {} })).toContain(
      'reconcile is "given", but must be left out unless the class has a reconcile(operation) method',
    );
  });

  it.each([
    [{ afterMs: 5_000 }, 'afterMs is 5000, but must be an ascending list of numbers greater than 0'],
    [{ afterMs: [0, 5] }, 'afterMs is 0,5, but must be an ascending list of numbers greater than 0'],
    [{ afterMs: [-5] }, 'afterMs is -5, but must be an ascending list of numbers greater than 0'],
    [{ afterMs: [5, 5] }, 'afterMs is 5,5, but must be an ascending list of numbers greater than 0'],
    [{ afterMs: [9, 5] }, 'afterMs is 9,5, but must be an ascending list of numbers greater than 0'],
    [{ afterMs: [5, NaN] }, 'afterMs is 5,NaN, but must be an ascending list of numbers greater than 0'],
    [
      { afterMs: [5, Infinity] },
      'afterMs is 5,Infinity, but must be an ascending list of numbers greater than 0',
    ],
    [{ afterMs: ['5'] }, 'afterMs is 5, but must be an ascending list of numbers greater than 0'],
    [{ thenEveryMs: 0 }, 'thenEveryMs is 0, but must be a number greater than 0'],
    [{ thenEveryMs: Infinity }, 'thenEveryMs is Infinity, but must be a number greater than 0'],
    [{ untilMs: NaN }, 'untilMs is NaN, but must be a number greater than 0'],
    [{ untilMs: Infinity }, 'untilMs is Infinity, but must be a number greater than 0'],
    [
      { timeoutMs: 0 },
      'timeoutMs is 0, but must be a number of milliseconds from 1 to 2147483647 (24.8 days)',
    ],
    [
      { timeoutMs: 2_147_483_648 },
      'timeoutMs is 2147483648, but must be a number of milliseconds from 1 to 2147483647 (24.8 days)',
    ],
    [{ lateArrivalMs: -1 }, 'lateArrivalMs is -1, but must be a number of at least 0'],
    [{ lateArrivalMs: NaN }, 'lateArrivalMs is NaN, but must be a number of at least 0'],
    [
      { untilMs: 60_000, lateArrivalMs: 60_000 },
      'lateArrivalMs is 60000, but must be less than reconcile.untilMs, which is 60000',
    ],
    [
      { lateArrivalMs: 86_400_001 },
      'lateArrivalMs is 86400001, but must be less than reconcile.untilMs, which is 86400000',
    ],
  ])('refuses reconcile: %o by name, value and what it must be', (reconcile, problem) => {
    expect(refusal({ effect: 'reconciled', reconcile }, true)).toBe(
      `@IdempotentProcessor("charges") on ChargeProcessor: reconcile.${problem}.`,
    );
  });
});

describe('resolveProcessorOptions: retry policies', () => {
  const under = (rules: RulesByPolicy, job: Job): ReturnType<RulesByPolicy['of']> =>
    rules.of(job, provenanceOf(job));

  const jobOf = (name: string, retryPolicy?: string): Job =>
    ({
      id: jobIdOf({ tenantId: 'acme', operationKey: 'k' }),
      name,
      data: {
        operation: { tenantId: 'acme', operationKey: 'k', fingerprint: 'f', retryPolicy },
        payload: {},
      },
    }) as unknown as Job;

  it('takes a policy by its name', () => {
    expect(resolve({ retry: 'charge' })).toMatchObject({
      timeoutMs: 4_000,
      claim: { budgetMs: 60_000 },
      policy: { attempts: 7, crashes: 3 },
    });
  });

  it('lets the timeout and the time budget of the processor go before those of its policy', () => {
    const rules = resolve({ retry: 'charge', timeoutMs: 9_000, timeBudgetMs: 1_000 });
    expect(rules).toMatchObject({ timeoutMs: 9_000, claim: { budgetMs: 1_000 }, policy: { attempts: 7 } });
  });

  it('waits no longer for an attempt than for its dependency', () => {
    expect(resolve({ dependency: 'gateway' }).timeoutMs).toBe(2_500);
    expect(resolve({ dependency: 'gateway', timeoutMs: 1_000 }).timeoutMs).toBe(1_000);
    expect(resolve({ dependency: 'mailer' }).timeoutMs).toBe(30_000);
  });

  it.each([
    { job: jobOf('charge'), attempts: 3, whose: 'the processor' },
    { job: jobOf('refund'), attempts: 2, whose: 'the job name' },
    { job: jobOf('charge', 'charge'), attempts: 7, whose: 'the operation' },
    { job: jobOf('refund', 'charge'), attempts: 7, whose: 'the operation, before the job name' },
    {
      job: { name: 'refund', data: { amount: 1 } } as unknown as Job,
      attempts: 2,
      whose: 'the job name of plain data',
    },
  ])('runs a job under the policy of $whose', ({ job, attempts }) => {
    const rules = resolveAll({ retry: { attempts: 3 }, retryByJob: { refund: 'mail' } });
    expect(under(rules, job)).toMatchObject({
      rules: { policy: { attempts } },
      unknownPolicy: undefined,
    });
  });

  it('runs a job that asks for a policy nobody knows here under its own, and says so', () => {
    const rules = resolveAll({ retry: { attempts: 3 }, retryByJob: { refund: 'mail' } });
    expect(under(rules, jobOf('charge', 'gone'))).toMatchObject({
      rules: { policy: { attempts: 3 } },
      unknownPolicy: 'gone',
    });
    expect(under(rules, jobOf('refund', 'toString'))).toMatchObject({
      rules: { policy: { attempts: 2 } },
      unknownPolicy: 'toString',
    });
  });

  it('makes the rules of a policy once, so that claims under them share statements', () => {
    const rules = resolveAll({});
    expect(under(rules, jobOf('a', 'mail')).rules.claim).toBe(under(rules, jobOf('b', 'mail')).rules.claim);
  });

  it('lets a job kill as many workers as the most patient of its policies allows', () => {
    expect(resolveAll({ retry: { crashes: 1 } }).stalls).toBe(3);
    expect(resolveAll({ retry: { crashes: 9 } }).stalls).toBe(9);
    // The ledger has no record of a crash in an attempt without a claim.
    expect(resolveAll({ effect: 'natural', optimistic: true, retry: { crashes: 9 } }).stalls).toBe(10);
  });

  it.each([
    [{ retry: 'gone' }, 'retry is "gone", but must be one of forRoot({ retryPolicies }): charge, mail'],
    [
      { retryByJob: { refund: 'gone' } },
      'retryByJob.refund is "gone", but must be one of forRoot({ retryPolicies }): charge, mail',
    ],
    [
      { retryByJob: { refund: { attempts: 0 } } },
      'retryByJob.refund.attempts is 0, but must be a whole number greater than 0',
    ],
    [
      { retry: { timeoutMs: 0 } },
      'retry.timeoutMs is 0, but must be a number of milliseconds from 1 to 2147483647 (24.8 days)',
    ],
    [{ retry: { timeBudgetMs: 0 } }, 'retry.timeBudgetMs is 0, but must be a number greater than 0'],
    [
      { retry: { backoff: { jitter: 'some' } } },
      'retry.backoff.jitter is "some", but must be "full" or "equal" or "decorrelated"',
    ],
    [
      { dependency: 'gatway' },
      'dependency is "gatway", but must be one of forRoot({ dependencies }): gateway, mailer',
    ],
    [{ pauseQueue: true }, 'pauseQueue is true, but must be left out unless the processor has a dependency'],
  ])('refuses %o', (options, problem) => {
    expect(refusal(options)).toBe(`@IdempotentProcessor("charges") on ChargeProcessor: ${problem}.`);
  });

  it('refuses a fallback() that stands in for nothing', () => {
    expect(refusal({}, false, true)).toContain('because the class has a fallback() that stands in for it');
    expect(resolveAll({ dependency: 'gateway' }, { hasFallback: true }).own.hasFallback).toBe(true);
  });
});
