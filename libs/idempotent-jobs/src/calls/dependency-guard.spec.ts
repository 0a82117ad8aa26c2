import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import {
  currentOperation,
  type CurrentOperation,
  enterOperation,
} from '../worker/attempt/current-operation.js';
import { type JobEvent, JobEvents } from '../events/job-events.js';
import { UsageError } from '../operation/errors.js';
import { optionChecks } from '../option-checks/option-checks.js';
import { classify } from '../resilience/classify/classify.js';
import { InDoubtError } from '../operation/failure.js';
import { TenantContext } from '../tenancy/tenant-context.js';
import { Dependencies } from '../resilience/dependency/dependencies.js';
import { DependencyGuard, DependencyTimeoutError, type GuardedCallOptions } from './dependency-guard.js';
import { type DependencyOptions, resolveDependencies } from '../resilience/dependency/dependency.options.js';
import { DependencyRejectedError } from '../resilience/dependency/rejection.js';
import { FALLBACK_REASONS, type FallbackReason } from '../operation/reasons.js';

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  expect(vi.getTimerCount()).toBe(0);
  vi.useRealTimers();
});

/** Opens after two failures. */
const BREAKER = { minimumCalls: 2, openMs: 10_000, successes: 1 };
const WITHOUT = { breaker: false, retryBudget: false } as const;

const SUBJECT = { queue: 'charges', jobName: 'charge', tenantId: 'acme', operationKey: 'charge:1' };

const refused = Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' });
const fails = (): never => {
  throw refused;
};
const never = (): Promise<never> => new Promise(() => undefined);

/** A guard, and an operation to call from, if one is wanted. */
class Bench {
  readonly told: JobEvent[] = [];
  readonly dependencies: Dependencies;
  readonly guard: DependencyGuard;
  readonly tenants = new TenantContext();
  readonly degraded: string[] = [];
  readonly stopped = new AbortController();

  constructor(dependencies: Record<string, DependencyOptions> = { gateway: WITHOUT, rates: WITHOUT }) {
    const events = new JobEvents();
    events.subscribe((event) => this.told.push(event));
    const rules = resolveDependencies(optionChecks('test'), dependencies);
    this.dependencies = new Dependencies({ dependencies: rules }, events, undefined, () => 0.5);
    this.guard = new DependencyGuard(this.dependencies);
  }

  /** Runs `work` in a handler; `dependency`: what has let it through. */
  inside<T>(
    work: () => Promise<T>,
    { attempt = 1, dependency }: { attempt?: number; dependency?: string } = {},
  ) {
    return this.tenants.runJob('acme', () => {
      enterOperation(
        {
          ...SUBJECT,
          attempt,
          signal: this.stopped.signal,
          markDegraded: (why: string) => this.degraded.push(why),
          noteCall: () => undefined,
          mayHaveHappened: false,
          isOver: false,
          mayBegin: async () => !this.stopped.signal.aborted,
        } as unknown as CurrentOperation,
        { dependency: dependency === undefined ? undefined : this.dependencies.named(dependency) },
      );
      return work();
    });
  }

  kinds(): string[] {
    return this.told.map(({ kind }) => kind);
  }
}

/** What a call rejects with. */
async function errorOf(call: Promise<unknown>): Promise<unknown> {
  return call.then(
    (value) => {
      throw new Error(`It has returned ${JSON.stringify(value)}`);
    },
    (error: unknown) => error,
  );
}

describe('DependencyGuard.call', () => {
  it('gives what the function returns, with a signal for it', async () => {
    const { guard } = new Bench();
    expect(await guard.call('gateway', (signal) => ({ isAborted: signal.aborted }))).toEqual({
      isAborted: false,
    });
    expect(await guard.call('gateway', async () => 'later')).toBe('later');
  });

  it('throws what the function throws, the same error', async () => {
    const { guard } = new Bench();
    expect(await errorOf(guard.call('gateway', fails))).toBe(refused);
    expect(await errorOf(guard.call('gateway', () => Promise.reject(refused)))).toBe(refused);
  });

  it('refuses a dependency that nobody has declared, and says which there are', async () => {
    const { guard } = new Bench();
    const error = await errorOf(guard.call('gatway', () => 1));
    expect(error).toBeInstanceOf(UsageError);
    expect((error as Error).message).toBe(
      'There is no dependency "gatway" among forRoot({ dependencies }): gateway, rates.',
    );
    for (const ask of [
      () => guard.stateOf('gatway'),
      () => guard.forceOpen('gatway'),
      () => guard.forceClosed('gatway'),
      () => guard.resetCircuit('gatway'),
    ])
      expect(ask).toThrow(UsageError);
    await expect(new Bench({}).guard.call('gateway', () => 1)).rejects.toThrow('there are none');
  });

  it('refuses what is no function, and a timeout that no timer can count', async () => {
    const { guard } = new Bench();
    await expect(guard.call('gateway', 7 as never)).rejects.toThrow(UsageError);
    for (const timeoutMs of [0, -1, NaN, Infinity, 2 ** 31])
      await expect(guard.call('gateway', () => 1, { timeoutMs })).rejects.toThrow(
        `timeoutMs is ${timeoutMs}, but must be a number of milliseconds from 1`,
      );
  });

  it('does not call the function while the circuit is open, and says when to come again', async () => {
    const { guard } = new Bench({ gateway: { breaker: BREAKER } });
    for (let call = 0; call < 2; call += 1) await errorOf(guard.call('gateway', fails));
    const fn = vi.fn();
    const error = await errorOf(guard.call('gateway', fn));
    expect(error).toBeInstanceOf(DependencyRejectedError);
    expect(error).toMatchObject({
      rejection: { dependency: 'gateway', cause: 'circuit_open' },
      retryAfterMs: 10_000 * 1.125,
    });
    expect(fn).not.toHaveBeenCalled();
  });

  it('counts calls of one dependency for no other', async () => {
    const { guard } = new Bench({ gateway: { breaker: BREAKER }, rates: { breaker: BREAKER } });
    for (let call = 0; call < 2; call += 1) await errorOf(guard.call('gateway', fails));
    expect(guard.stateOf('gateway').circuit).toBe('open');
    expect(await guard.call('rates', () => 1)).toBe(1);
    expect(guard.states.map(({ name, circuit }) => `${name} ${circuit}`)).toEqual([
      'gateway open',
      'rates closed',
    ]);
  });

  it('lets no more calls run at once than it may, and gives the place back however one ends', async () => {
    const { guard } = new Bench({ gateway: { ...WITHOUT, maxConcurrent: 1 } });
    let finish!: () => void;
    const slow = guard.call('gateway', () => new Promise<void>((resolve) => (finish = resolve)));
    expect(await errorOf(guard.call('gateway', () => 1))).toMatchObject({
      rejection: { cause: 'bulkhead_full' },
    });
    await vi.advanceTimersByTimeAsync(0);
    finish();
    await slow;
    await errorOf(guard.call('gateway', fails));
    expect(guard.stateOf('gateway').active).toBe(0);
    expect(await guard.call('gateway', () => 1)).toBe(1);
  });

  it('takes a held call inside of another for no failure of the other', async () => {
    const { guard } = new Bench({ gateway: { breaker: BREAKER }, rates: {} });
    guard.forceOpen('rates');
    const convert = (): Promise<number> => guard.call('gateway', () => guard.call('rates', () => 1));
    for (let call = 0; call < 5; call += 1)
      expect(await errorOf(convert())).toMatchObject({ rejection: { dependency: 'rates' } });
    expect(guard.stateOf('gateway').circuit).toBe('closed');
  });

  it('does what a person says: nothing, everything, and by itself again', async () => {
    const { guard } = new Bench({ gateway: { breaker: BREAKER } });
    guard.forceOpen('gateway');
    expect(await errorOf(guard.call('gateway', () => 1))).toBeInstanceOf(DependencyRejectedError);
    guard.forceClosed('gateway');
    for (let call = 0; call < 5; call += 1) expect(await errorOf(guard.call('gateway', fails))).toBe(refused);
    guard.resetCircuit('gateway');
    for (let call = 0; call < 2; call += 1) await errorOf(guard.call('gateway', fails));
    expect(guard.stateOf('gateway').circuit).toBe('open');
  });
});

describe('DependencyGuard.call: the timeout', () => {
  it.each([
    { title: 'its own', own: 70, declared: 700, ms: 70 },
    { title: 'the dependency’s', own: undefined, declared: 700, ms: 700 },
    { title: '30 s', own: undefined, declared: undefined, ms: 30_000 },
  ])(
    'is $title: the signal is aborted, and a function that ignores it is not waited for',
    async ({ own, declared, ms }) => {
      const { guard } = new Bench({
        gateway: { ...WITHOUT, ...(declared !== undefined && { timeoutMs: declared }) },
      });
      let signal!: AbortSignal;
      const ignores = (given: AbortSignal): Promise<never> => {
        signal = given;
        return never();
      };
      let error: unknown;
      const call = errorOf(guard.call('gateway', ignores, own === undefined ? {} : { timeoutMs: own })).then(
        (thrown) => (error = thrown),
      );
      await vi.advanceTimersByTimeAsync(ms - 1);
      expect(error).toBeUndefined();
      await vi.advanceTimersByTimeAsync(1);
      await call;
      expect(error).toBeInstanceOf(DependencyTimeoutError);
      expect((error as Error).message).toBe(`Dependency "gateway" took longer than its ${ms} ms.`);
      expect(signal.reason).toBe(error);
    },
  );

  it('leaves a doubt, counts as a failure, and is told', async () => {
    const bench = new Bench({ gateway: { breaker: BREAKER, timeoutMs: 100 } });
    for (let call = 0; call < 2; call += 1) {
      const error = errorOf(bench.inside(() => bench.guard.call('gateway', never)));
      await vi.advanceTimersByTimeAsync(100);
      expect(await error).toBeInstanceOf(InDoubtError);
      expect(classify(await error)).toMatchObject({ kind: 'in_doubt', code: 'DependencyTimeoutError' });
    }
    expect(bench.guard.stateOf('gateway').circuit).toBe('open');
    expect(bench.told.filter(({ kind }) => kind === 'dependency_timeout')).toEqual(
      [1, 2].map(() => ({ kind: 'dependency_timeout', ...SUBJECT, dependency: 'gateway' })),
    );
  });

  it('keeps the place of a function that ignores it no longer than that', async () => {
    const { guard } = new Bench({ gateway: { ...WITHOUT, maxConcurrent: 1, timeoutMs: 100 } });
    const error = errorOf(guard.call('gateway', never));
    await vi.advanceTimersByTimeAsync(100);
    await error;
    expect(guard.stateOf('gateway').active).toBe(0);
  });
});

describe('DependencyGuard.call: inside of an operation', () => {
  it('ends with the operation, for its reason, which says nothing about the dependency', async () => {
    const bench = new Bench({ gateway: { breaker: { ...BREAKER, minimumCalls: 1 } } });
    const fallback = vi.fn();
    let signal!: AbortSignal;
    const listens = (given: AbortSignal): Promise<never> => {
      signal = given;
      return new Promise((_resolve, reject) => given.addEventListener('abort', () => reject(refused)));
    };
    const options = { fallback, fallbackOn: FALLBACK_REASONS };
    const error = errorOf(bench.inside(() => bench.guard.call('gateway', listens, options)));
    await vi.advanceTimersByTimeAsync(0);
    const reason = new Error('the lease is lost');
    bench.stopped.abort(reason);
    expect(await error).toBe(reason);
    expect(signal.reason).toBe(reason);
    expect(fallback).not.toHaveBeenCalled();
    expect(bench.guard.states).toMatchObject([{ circuit: 'closed', active: 0 }]);
    expect(bench.told).toEqual([]);
  });

  it('is not made where the operation is over already', async () => {
    const bench = new Bench();
    bench.stopped.abort(new Error('shutdown'));
    const fn = vi.fn();
    await expect(bench.inside(() => bench.guard.call('gateway', fn))).rejects.toThrow('shutdown');
    expect(fn).not.toHaveBeenCalled();
  });

  it('is a first try in the first attempt, and a retry that needs the budget in each later one', async () => {
    const bench = new Bench({ gateway: { retryBudget: { ratio: 0, minPerSecond: 0 } } });
    const call = (attempt: number): Promise<number> =>
      bench.inside(() => bench.guard.call('gateway', () => attempt), { attempt });
    expect(await bench.guard.call('gateway', () => 0)).toBe(0);
    expect(await call(1)).toBe(1);
    for (const attempt of [2, 3])
      expect(await errorOf(call(attempt))).toMatchObject({ rejection: { cause: 'retry_budget_spent' } });
    expect(bench.told).toEqual(
      [2, 3].map(() => ({ kind: 'retry_budget_denied', ...SUBJECT, dependency: 'gateway' })),
    );
    expect(bench.guard.stateOf('gateway')).toMatchObject({ isBudgetSpent: true, active: 0 });
  });

  it('is part of what its processor’s dependency let through, and asks nobody again', async () => {
    const bench = new Bench({
      gateway: { breaker: BREAKER, maxConcurrent: 1, retryBudget: { ratio: 0, minPerSecond: 0 } },
    });
    const pass = bench.dependencies.named('gateway').enter(1_000);
    if (pass.kind === 'rejected') throw new Error('Held');
    const inside = { attempt: 2, dependency: 'gateway' };
    expect(await bench.inside(() => bench.guard.call('gateway', () => 1), inside)).toBe(1);
    for (let call = 0; call < 5; call += 1)
      expect(await errorOf(bench.inside(() => bench.guard.call('gateway', fails), inside))).toBe(refused);
    // The attempt says how it went, not each of its calls.
    expect(bench.guard.stateOf('gateway')).toMatchObject({ circuit: 'closed', active: 1 });
    pass.leave();
  });

  it('has its own timeout, also where the processor’s dependency let it through', async () => {
    const bench = new Bench();
    const call = (): Promise<never> => bench.guard.call('gateway', never, { timeoutMs: 50 });
    const error = errorOf(bench.inside(call, { dependency: 'gateway' }));
    await vi.advanceTimersByTimeAsync(50);
    expect(await error).toBeInstanceOf(DependencyTimeoutError);
  });

  it('asks for another dependency than that of its processor', async () => {
    const bench = new Bench();
    bench.guard.forceOpen('rates');
    const call = (): Promise<number> => bench.guard.call('rates', () => 1);
    expect(await errorOf(bench.inside(call, { dependency: 'gateway' }))).toMatchObject({
      rejection: { dependency: 'rates' },
    });
  });

  it('runs in its operation, as does its fallback', async () => {
    const bench = new Bench();
    const key = (): string => currentOperation().operationKey;
    expect(await bench.inside(() => bench.guard.call('gateway', key))).toBe('charge:1');
    bench.guard.forceOpen('gateway');
    expect(await bench.inside(() => bench.guard.call('gateway', () => '', { fallback: key }))).toBe(
      'charge:1',
    );
  });
});

describe('DependencyGuard.call: the fallback', () => {
  /** Has a call end for that reason. */
  async function ending(
    reason: FallbackReason,
    options: Partial<GuardedCallOptions<unknown>>,
  ): Promise<{ bench: Bench; end: Promise<unknown> }> {
    const bench = new Bench({
      gateway: {
        maxConcurrent: 1,
        breaker: BREAKER,
        retryBudget: { ratio: 0, minPerSecond: 0 },
        timeoutMs: 100,
      },
    });
    const { guard } = bench;
    if (reason === 'circuit_open') guard.forceOpen('gateway');
    if (reason === 'bulkhead_full') {
      const held = guard.call('gateway', () => new Promise<void>((resolve) => setTimeout(resolve, 90)));
      void held;
    }
    const fn = reason === 'timeout' ? never : reason === 'failed' ? fails : () => 'real';
    const call = (): Promise<unknown> => guard.call<unknown>('gateway', fn, options);
    const end = bench.inside(call, { attempt: reason === 'retry_budget_spent' ? 2 : 1 });
    end.catch(() => undefined);
    await vi.advanceTimersByTimeAsync(100);
    return { bench, end };
  }

  it.each([
    { reason: 'circuit_open', isUsed: true },
    { reason: 'bulkhead_full', isUsed: true },
    { reason: 'retry_budget_spent', isUsed: true },
    { reason: 'timeout', isUsed: false },
    { reason: 'failed', isUsed: false },
  ] as const)(
    'by default answers only where nothing was sent: $reason, $isUsed',
    async ({ reason, isUsed }) => {
      const fallback = vi.fn(() => 'stand-in');
      const { bench, end } = await ending(reason, { fallback });
      if (!isUsed) {
        await expect(end).rejects.toThrow();
        expect(fallback).not.toHaveBeenCalled();
        expect(bench.degraded).toEqual([]);
        expect(bench.kinds()).not.toContain('fallback_used');
        return;
      }
      expect(await end).toBe('stand-in');
      expect(fallback).toHaveBeenCalledExactlyOnceWith(reason, expect.any(DependencyRejectedError));
      expect(bench.degraded).toEqual([`gateway: ${reason}`]);
      expect(bench.told).toContainEqual({
        kind: 'fallback_used',
        ...SUBJECT,
        dependency: 'gateway',
        reason,
      });
    },
  );

  it.each(FALLBACK_REASONS)('answers for %s where it is asked to, and for nothing else', async (reason) => {
    const { end } = await ending(reason, { fallback: () => 'stand-in', fallbackOn: [reason] });
    expect(await end).toBe('stand-in');
    const others = FALLBACK_REASONS.filter((other) => other !== reason);
    const { end: failed } = await ending(reason, { fallback: () => 'stand-in', fallbackOn: others });
    await expect(failed).rejects.toThrow();
  });

  it('is told what it stands in for', async () => {
    const seen: unknown[] = [];
    const fallback = (...told: unknown[]): void => void seen.push(told);
    await (
      await ending('failed', { fallback, fallbackOn: ['failed'] })
    ).end;
    await (
      await ending('timeout', { fallback, fallbackOn: ['timeout'] })
    ).end;
    expect(seen).toEqual([
      ['failed', refused],
      ['timeout', expect.any(DependencyTimeoutError)],
    ]);
  });

  it('counts the failure that it stands in for', async () => {
    const { guard } = new Bench({ gateway: { breaker: BREAKER } });
    const options = { fallback: () => 'stand-in', fallbackOn: ['failed'] } as const;
    for (let call = 0; call < 2; call += 1)
      expect(await guard.call<string>('gateway', fails, options)).toBe('stand-in');
    expect(guard.stateOf('gateway').circuit).toBe('open');
  });

  it('that throws has stood in for nothing', async () => {
    const broken = new Error('no rate is known');
    for (const fallback of [
      (): never => {
        throw broken;
      },
      () => Promise.reject(broken),
    ]) {
      const { bench, end } = await ending('circuit_open', { fallback });
      expect(await errorOf(end)).toBe(broken);
      expect(bench.degraded).toEqual([]);
      expect(bench.kinds()).not.toContain('fallback_used');
    }
  });

  it('has no place of the dependency, which it stands in for', async () => {
    const { guard } = new Bench({ gateway: { ...WITHOUT, maxConcurrent: 1 } });
    const active: number[] = [];
    const fallback = (): void => void active.push(guard.stateOf('gateway').active);
    await guard.call<void>('gateway', fails, { fallback, fallbackOn: ['failed'] });
    expect(active).toEqual([0]);
    expect(guard.stateOf('gateway').active).toBe(0);
  });

  it('outside of any operation answers the same, and is told of without one', async () => {
    const { guard, told } = new Bench();
    guard.forceOpen('gateway');
    expect(await guard.call('gateway', () => 1, { fallback: async () => 2 })).toBe(2);
    expect(told).toContainEqual({ kind: 'fallback_used', dependency: 'gateway', reason: 'circuit_open' });
  });
});

describe('DependencyGuard.call: what the dependency reads into an error', () => {
  const declined = new Error('declined');
  const decline = (): never => {
    throw declined;
  };

  it('counts, in place of the built-in rules', async () => {
    const { guard } = new Bench({
      gateway: { breaker: BREAKER, classify: (error) => (error === declined ? 'transient' : 'permanent') },
    });
    for (let call = 0; call < 5; call += 1) await errorOf(guard.call('gateway', fails));
    expect(guard.stateOf('gateway').circuit).toBe('closed');
    for (let call = 0; call < 2; call += 1) await errorOf(guard.call('gateway', decline));
    expect(guard.stateOf('gateway').circuit).toBe('open');
  });

  it('is known further up, by the error itself and where it is another’s cause', async () => {
    const { guard, dependencies } = new Bench({ gateway: { classify: () => 'permanent' }, rates: {} });
    await errorOf(guard.call('gateway', decline));
    const { knownFailureOf } = dependencies;
    expect(knownFailureOf?.(declined)).toEqual({ kind: 'permanent', code: 'classify' });
    expect(classify(new Error('the order failed', { cause: declined }), knownFailureOf)).toEqual({
      kind: 'permanent',
      code: 'classify',
    });
    expect(knownFailureOf?.(new Error('declined'))).toBeUndefined();
  });

  it('is known of the error of a call that its processor’s dependency let through, too', async () => {
    const bench = new Bench({ gateway: { classify: () => 'in_doubt' } });
    await errorOf(bench.inside(() => bench.guard.call('gateway', decline), { dependency: 'gateway' }));
    expect(bench.dependencies.knownFailureOf?.(declined)).toMatchObject({ kind: 'in_doubt' });
  });

  it('is noted by the built-in rules, too, but not for what is no object', async () => {
    const { guard, dependencies } = new Bench({ gateway: { classify: () => 'permanent' }, rates: {} });
    await errorOf(
      guard.call('gateway', () => {
        throw 'declined';
      }),
    );
    expect(dependencies.knownFailureOf?.('declined')).toBeUndefined();
    await errorOf(guard.call('rates', decline));
    expect(dependencies.knownFailureOf?.(declined)).toEqual({ kind: 'unknown', code: 'unclassified' });
    expect(new Bench({}).dependencies.knownFailureOf).toBeUndefined();
  });

  it('may be that an error of a function is a timeout', async () => {
    const bench = new Bench();
    const slow = Object.assign(new Error('socket timeout'), { code: 'ETIMEDOUT' });
    const fallback = vi.fn((reason: FallbackReason) => reason);
    const call = bench.guard.call<string>('gateway', () => Promise.reject(slow), {
      fallback,
      fallbackOn: ['timeout'],
    });
    expect(await call).toBe('timeout');
    expect(bench.kinds()).toContain('dependency_timeout');
  });
});
