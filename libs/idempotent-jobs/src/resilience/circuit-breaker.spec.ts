import { describe, expect, it } from 'vitest';
import { CircuitBreaker, type CircuitState, type Permit } from './circuit-breaker.js';
import type { CircuitBreakerOptions } from './circuit-breaker.options.js';

class Bench {
  nowMs = 1_000;
  dice = 0.5;
  readonly changes: CircuitState[] = [];
  readonly breaker: CircuitBreaker;

  constructor(options: CircuitBreakerOptions = {}) {
    this.breaker = new CircuitBreaker({
      now: () => this.nowMs,
      random: () => this.dice,
      onChange: (state) => this.changes.push(state),
      ...options,
    });
  }

  /** A call that must be let through. */
  admit(probeLeaseMs?: number): Permit {
    const admission = this.breaker.tryAcquire(probeLeaseMs);
    if (admission.kind !== 'admitted') throw new Error(`Turned away for ${admission.retryAfterMs} ms`);
    return admission.permit;
  }

  /** The wait that a call is told that must be turned away. */
  refusedMs(): number {
    const admission = this.breaker.tryAcquire();
    if (admission.kind !== 'open') throw new Error('Let through');
    return admission.retryAfterMs;
  }

  calls(count: number, end: 'succeed' | 'fail' | 'ignore'): void {
    for (let call = 0; call < count; call += 1) this.admit()[end]();
  }

  /** Opens it: 20 failures in a closed circuit. */
  open(): this {
    this.calls(20, 'fail');
    return this;
  }

  /** Lets the open time pass. */
  later(ms: number): this {
    this.nowMs += ms;
    return this;
  }
}

describe('CircuitBreaker: opening', () => {
  it('is closed at first', () => {
    expect(new Bench().breaker.state).toEqual({ kind: 'closed' });
    expect(new Bench().breaker.retryAfterMs).toBe(0);
  });

  it('stays closed while it knows of fewer calls than it needs, and opens with the next failure', () => {
    const bench = new Bench();
    bench.calls(19, 'fail');
    expect(bench.breaker.state.kind).toBe('closed');
    bench.calls(1, 'fail');
    expect(bench.breaker.state).toEqual({ kind: 'open', retryAfterMs: 30_000 });
  });

  it.each([
    [21, 20, 'closed'],
    [20, 20, 'open'],
    [100, 99, 'closed'],
  ])('after %i successes and %i failures it is %s', (successes, failures, kind) => {
    const bench = new Bench();
    bench.calls(successes, 'succeed');
    bench.calls(failures, 'fail');
    expect(bench.breaker.state.kind).toBe(kind);
  });

  it('does not open on a success, which may be the first of many', () => {
    const bench = new Bench();
    bench.calls(19, 'fail');
    bench.calls(1, 'succeed');
    expect(bench.breaker.state.kind).toBe('closed');
  });

  it('does not count calls that say nothing', () => {
    const bench = new Bench();
    bench.calls(19, 'fail');
    bench.calls(100, 'ignore');
    expect(bench.breaker.state.kind).toBe('closed');
  });

  it('forgets what is older than its window, also when nothing happened meanwhile', () => {
    const bench = new Bench();
    bench.calls(19, 'fail');
    bench.later(60_000).calls(19, 'fail');
    expect(bench.breaker.state.kind).toBe('closed');
    bench.later(3_600_000).calls(19, 'fail');
    expect(bench.breaker.state.kind).toBe('closed');
  });

  it('counts a call when it ends and only once, whatever is said of it later', () => {
    const bench = new Bench({ minimumCalls: 2 });
    const permit = bench.admit();
    permit.succeed();
    permit.fail();
    permit.fail();
    expect(bench.breaker.state.kind).toBe('closed');
  });

  it('ignores calls that were let through while closed and end after it has opened', () => {
    const bench = new Bench();
    const [lateSuccess, lateFailure] = [bench.admit(), bench.admit()];
    bench.open().later(30_000);
    lateSuccess.succeed();
    bench.admit();
    lateFailure.fail();
    expect(bench.breaker.state).toEqual({ kind: 'half_open', successes: 0 });
  });

  it('ignores calls that were let through before it opened and closed again', () => {
    const bench = new Bench({ minimumCalls: 1 });
    const early = bench.admit();
    bench.calls(1, 'fail');
    bench.later(30_000).calls(2, 'succeed');
    early.fail();
    expect(bench.breaker.state.kind).toBe('closed');
  });
});

describe('CircuitBreaker: being open', () => {
  it.each([
    [0, 0, 24_000],
    [0.5, 0, 30_000],
    [0.9999999, 0, 36_000],
    [0.5, 12_000, 18_000],
    [0.5, 30_000, 0],
    [0.5, 99_000, 0],
  ])('with the dice at %d and after %i ms it stays open for %i ms', (dice, laterMs, leftMs) => {
    const bench = new Bench();
    bench.dice = dice;
    bench.open().later(laterMs);
    expect(bench.breaker.retryAfterMs).toBeCloseTo(leftMs, 1);
    expect(bench.breaker.state).toEqual({ kind: 'open', retryAfterMs: bench.breaker.retryAfterMs });
  });

  it.each([
    [0, 30_000],
    [0.5, 33_750],
    [0.9999999, 37_500],
  ])('spreads the return of those it turns away over a quarter: dice at %d: %i ms', (dice, waitMs) => {
    const bench = new Bench().open();
    bench.dice = dice;
    expect(bench.refusedMs()).toBeCloseTo(waitMs, 1);
  });

  it('stays open twice as long each time a probe fails, up to a bound, and as at first once it was closed', () => {
    const bench = new Bench().open();
    const times: number[] = [];
    for (let round = 0; round < 6; round += 1) {
      times.push(bench.breaker.retryAfterMs);
      bench.later(bench.breaker.retryAfterMs).calls(1, 'fail');
    }
    expect(times).toEqual([30_000, 60_000, 120_000, 240_000, 300_000, 300_000]);
    bench.later(300_000).calls(2, 'succeed');
    expect(bench.open().breaker.retryAfterMs).toBe(30_000);
  });
});

describe('CircuitBreaker: half open', () => {
  const halfOpen = (): Bench => new Bench().open().later(30_000);

  it('closes after two successful probes, with an empty window', () => {
    const bench = halfOpen();
    bench.calls(1, 'succeed');
    expect(bench.breaker.state).toEqual({ kind: 'half_open', successes: 1 });
    bench.calls(1, 'succeed');
    expect(bench.breaker.state).toEqual({ kind: 'closed' });
    bench.calls(19, 'fail');
    expect(bench.breaker.state).toEqual({ kind: 'closed' });
  });

  it('opens again when a probe fails, whether or not one had succeeded', () => {
    const bench = halfOpen();
    bench.calls(1, 'succeed');
    bench.calls(1, 'fail');
    expect(bench.breaker.state).toEqual({ kind: 'open', retryAfterMs: 60_000 });
  });

  it('lets only one probe through, and tells others to look again soon', () => {
    const bench = halfOpen();
    bench.admit();
    bench.dice = 0;
    expect(bench.refusedMs()).toBe(5_000);
    expect(bench.later(33_000).refusedMs()).toBe(2_000);
  });

  it('lets the next probe through after one that says nothing', () => {
    const bench = halfOpen();
    bench.calls(1, 'succeed');
    bench.calls(1, 'ignore');
    expect(bench.breaker.state).toEqual({ kind: 'half_open', successes: 1 });
    expect(bench.breaker.retryAfterMs).toBe(0);
  });

  it.each([
    [undefined, 35_000],
    [1_000, 1_000],
  ])('takes a probe for lost when its lease has ended: given %s, after %i ms', (given, leaseMs) => {
    const bench = halfOpen();
    bench.admit(given);
    bench.later(leaseMs - 1);
    expect(bench.refusedMs()).toBeGreaterThan(0);
    bench.later(1).admit();
  });

  it.each(['succeed', 'fail', 'ignore'] as const)(
    'does not hear a probe that has lost its lease: %s',
    (end) => {
      const bench = halfOpen();
      const lost = bench.admit();
      bench.later(35_000);
      lost[end]();
      expect(bench.breaker.state).toEqual({ kind: 'half_open', successes: 0 });
      const heir = bench.admit();
      lost[end]();
      expect(bench.refusedMs()).toBeGreaterThan(0);
      heir.succeed();
      expect(bench.breaker.state).toEqual({ kind: 'half_open', successes: 1 });
    },
  );
});

describe('CircuitBreaker: forced', () => {
  it('turns every call away while forced open, for as long as it would be open by itself', () => {
    const bench = new Bench();
    bench.breaker.forceOpen();
    bench.dice = 0;
    expect(bench.breaker.state).toEqual({ kind: 'forced_open' });
    expect(bench.refusedMs()).toBe(30_000);
    expect(bench.later(3_600_000).refusedMs()).toBe(30_000);
  });

  it('lets every call through while forced closed, whatever becomes of them', () => {
    const bench = new Bench().open();
    bench.breaker.forceClosed();
    bench.calls(100, 'fail');
    expect(bench.breaker.state).toEqual({ kind: 'forced_closed' });
    expect(bench.breaker.retryAfterMs).toBe(0);
  });

  it.each(['forceOpen', 'forceClosed'] as const)('begins anew after %s', (force) => {
    const bench = new Bench().open();
    bench.later(30_000).calls(1, 'fail');
    bench.breaker[force]();
    bench.breaker.reset();
    expect(bench.breaker.state).toEqual({ kind: 'closed' });
    expect(bench.open().breaker.retryAfterMs).toBe(30_000);
  });

  it('leaves a circuit alone that was not forced', () => {
    const bench = new Bench().open();
    bench.breaker.reset();
    expect(bench.breaker.state.kind).toBe('open');
  });

  it('does not hear what was let through before it was forced', () => {
    const bench = new Bench({ minimumCalls: 1 });
    const early = bench.admit();
    bench.breaker.forceClosed();
    bench.breaker.reset();
    early.fail();
    expect(bench.breaker.state.kind).toBe('closed');
  });
});

describe('CircuitBreaker: who listens', () => {
  it('is told of each change once, with the state it led to', () => {
    const bench = new Bench().open();
    bench.later(30_000).calls(1, 'fail');
    bench.later(60_000).calls(2, 'succeed');
    bench.breaker.forceOpen();
    bench.breaker.forceOpen();
    bench.breaker.forceClosed();
    bench.breaker.reset();
    expect(bench.changes).toEqual([
      { kind: 'open', retryAfterMs: 30_000 },
      { kind: 'half_open', successes: 0 },
      { kind: 'open', retryAfterMs: 60_000 },
      { kind: 'half_open', successes: 0 },
      { kind: 'closed' },
      { kind: 'forced_open' },
      { kind: 'forced_closed' },
      { kind: 'closed' },
    ]);
  });

  it('gets no second probe by asking for one when told that it is half open', () => {
    const asked: string[] = [];
    const bench = new Bench({
      onChange: ({ kind }) => {
        if (kind === 'half_open') asked.push(bench.breaker.tryAcquire().kind);
      },
    });
    bench.open().later(30_000).admit();
    expect(asked).toEqual(['open']);
  });

  it('need not be there, nor need a clock or dice', () => {
    const breaker = new CircuitBreaker({ now: undefined, minimumCalls: 1 });
    const admission = breaker.tryAcquire();
    if (admission.kind === 'admitted') admission.permit.fail();
    expect(breaker.state.kind).toBe('open');
  });
});
