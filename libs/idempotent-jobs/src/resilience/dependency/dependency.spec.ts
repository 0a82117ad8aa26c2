import { describe, expect, it } from 'vitest';
import { type JobEvent, JobEvents } from '../../events/job-events.js';
import { optionChecks } from '../../option-checks/option-checks.js';
import { classify } from '../classify/classify.js';
import type { Failure } from '../../operation/failure.js';
import { signed } from '../classify/failure-sign.js';
import { Dependencies } from './dependencies.js';
import type { Dependency } from './dependency.js';
import { type DependencyOptions, resolveDependencies } from './dependency.options.js';
import type { Rejection } from './rejection.js';
import { DependencyPermit } from './dependency-permit.js';

const REFUSED: Failure = { kind: 'transient', code: 'ECONNREFUSED' };
const coded = (code: string): Error => Object.assign(new Error('failed'), { code });
const named = (name: string): Error => Object.assign(new Error('failed'), { name });
const SUBJECT = {
  queue: 'charges',
  jobName: 'charge',
  jobId: 'op-1',
  tenantId: 'acme',
  operationKey: 'charge:1',
};

/** Opens after four failures, for 10 s; one success closes it. */
const BREAKER = { minimumCalls: 4, openMs: 10_000, successes: 1 };

/** A dependency whose clock and dice the test has in its hand. */
class Bench {
  nowMs = 1_000;
  dice = 0.5;
  readonly told: JobEvent[] = [];
  readonly dependency: Dependency;

  constructor(options: DependencyOptions = {}) {
    const events = new JobEvents();
    events.subscribe((event) => this.told.push(event));
    const rules = resolveDependencies(optionChecks('test'), { gateway: options });
    const dependencies = new Dependencies(
      { dependencies: rules },
      events,
      () => this.nowMs,
      () => this.dice,
    );
    this.dependency = dependencies.named('gateway');
  }

  /** A call that must be let through. */
  enter(timeoutMs = 1_000): DependencyPermit {
    const entry = this.dependency.enter(timeoutMs);
    if (entry.kind === 'rejected') throw new Error(`Held: ${entry.cause}`);
    return entry;
  }

  /** Why a call is held that must be. */
  held(timeoutMs = 1_000): Rejection {
    const entry = this.dependency.enter(timeoutMs);
    if (entry instanceof DependencyPermit) throw new Error('Let through');
    return entry;
  }

  fail(times: number, failure = REFUSED): this {
    for (let call = 0; call < times; call += 1) {
      const pass = this.enter();
      pass.failed(undefined, failure, {});
      pass.leave();
    }
    return this;
  }

  open(): this {
    this.fail(4);
    expect(this.circuit).toBe('open');
    return this;
  }

  later(ms: number): this {
    this.nowMs += ms;
    return this;
  }

  get circuit(): string {
    return this.dependency.state.circuit;
  }

  kinds(): string[] {
    return this.told.map((event) => ('state' in event ? `${event.kind} ${event.state}` : event.kind));
  }
}

describe('Dependency: letting calls through', () => {
  it('lets any number through, as it is given', () => {
    const bench = new Bench();
    for (let call = 0; call < 1_000; call += 1) bench.enter();
    expect(bench.dependency.state).toEqual({
      name: 'gateway',
      circuit: 'closed',
      retryAfterMs: 0,
      active: 1_000,
      isBudgetSpent: false,
    });
  });

  it('keeps what it was declared with', () => {
    const own = (): undefined => undefined;
    const { dependency } = new Bench({ timeoutMs: 700, clientRetries: 2, classify: own });
    expect(dependency).toMatchObject({ name: 'gateway', timeoutMs: 700, clientRetries: 2, classify: own });
  });

  it('holds calls while its circuit is open, and spreads when they come again', () => {
    const bench = new Bench({ breaker: BREAKER }).open();
    bench.dice = 0;
    expect(bench.held()).toEqual({
      kind: 'rejected',
      dependency: 'gateway',
      cause: 'circuit_open',
      retryAfterMs: 10_000,
    });
    bench.dice = 0.8;
    expect(bench.later(4_000).held().retryAfterMs).toBeCloseTo(6_000 * 1.2);
  });

  it('holds what finds its bulkhead full, for half a second to one and a half', () => {
    const bench = new Bench({ maxConcurrent: 2 });
    const first = bench.enter();
    bench.enter();
    bench.dice = 0;
    expect(bench.held()).toEqual({
      kind: 'rejected',
      dependency: 'gateway',
      cause: 'bulkhead_full',
      retryAfterMs: 500,
    });
    bench.dice = 1;
    expect(bench.held().retryAfterMs).toBe(1_500);
    first.leave();
    expect(bench.enter()).toBeInstanceOf(DependencyPermit);
  });

  it('gives a place back once, however often the call is left', () => {
    const bench = new Bench({ maxConcurrent: 2 });
    const first = bench.enter();
    bench.enter();
    first.leave();
    first.leave();
    bench.enter();
    expect(bench.held().cause).toBe('bulkhead_full');
    expect(bench.dependency.state.active).toBe(2);
  });

  it('asks the circuit before the bulkhead: what both would hold is held for the circuit', () => {
    const bench = new Bench({ breaker: BREAKER, maxConcurrent: 4 });
    const passes = Array.from({ length: 4 }, () => bench.enter());
    for (const pass of passes) pass.failed(undefined, REFUSED, {});
    expect(bench.dependency.state).toMatchObject({ circuit: 'open', active: 4 });
    expect(bench.held().cause).toBe('circuit_open');
  });

  it('leaves the probe to the next call when the bulkhead holds one', () => {
    const bench = new Bench({ breaker: BREAKER, maxConcurrent: 4 });
    const passes = Array.from({ length: 4 }, () => bench.enter());
    for (const pass of passes) pass.failed(undefined, REFUSED, {});
    bench.later(10_000);
    expect(bench.held().cause).toBe('bulkhead_full');
    expect(bench.circuit).toBe('half_open');
    passes[0]?.leave();
    const probe = bench.enter();
    expect(bench.held().cause).toBe('circuit_open');
    probe.succeeded({});
    expect(bench.circuit).toBe('closed');
  });

  it('counts no call that the bulkhead has held', () => {
    const bench = new Bench({ breaker: BREAKER, maxConcurrent: 1 });
    bench.fail(3);
    const pass = bench.enter();
    for (let call = 0; call < 10; call += 1) bench.held();
    expect(bench.circuit).toBe('closed');
    pass.failed(undefined, REFUSED, {});
    expect(bench.circuit).toBe('open');
  });
});

describe('Dependency: the probe of a half-open circuit', () => {
  it('is given back by a call that is left without a word', () => {
    const bench = new Bench({ breaker: BREAKER }).open().later(10_000);
    const probe = bench.enter();
    expect(bench.held().cause).toBe('circuit_open');
    probe.leave();
    expect(bench.circuit).toBe('half_open');
    bench.enter().succeeded({});
    expect(bench.circuit).toBe('closed');
  });

  it('is lost when it is not heard of for its timeout and five seconds', () => {
    const bench = new Bench({ breaker: BREAKER }).open().later(10_000);
    bench.enter(2_000);
    bench.later(6_999);
    expect(bench.held(2_000).cause).toBe('circuit_open');
    bench.later(1);
    bench.enter(2_000).succeeded({});
    expect(bench.circuit).toBe('closed');
  });

  it('opens the circuit again when it fails, for longer', () => {
    const bench = new Bench({ breaker: BREAKER }).open().later(10_000);
    bench.fail(1);
    expect(bench.dependency.state).toMatchObject({ circuit: 'open', retryAfterMs: 20_000 });
  });

  it('says what the circuit becomes, each time it changes', () => {
    const bench = new Bench({ breaker: BREAKER }).open().later(10_000);
    const probe = bench.enter();
    probe.succeeded({});
    probe.leave();
    expect(bench.told).toEqual(
      ['open', 'half_open', 'closed'].map((state) => ({
        kind: 'circuit_changed',
        dependency: 'gateway',
        state,
      })),
    );
  });
});

describe('Dependency: what counts', () => {
  it.each<{ title: string; failure: Failure; counts: 'failure' | 'success' | 'nothing' }>([
    { title: 'a refused connection', failure: REFUSED, counts: 'failure' },
    {
      title: 'a status that is worth another try',
      failure: { kind: 'transient', code: 'http_503' },
      counts: 'failure',
    },
    { title: 'a doubt', failure: { kind: 'in_doubt', code: 'ECONNRESET' }, counts: 'failure' },
    { title: 'a timeout', failure: { kind: 'in_doubt', code: 'timeout' }, counts: 'failure' },
    {
      title: 'a request that is refused for good',
      failure: signed('answer', { kind: 'permanent', code: 'http_422' }),
      counts: 'success',
    },
    {
      title: 'a service that does not know how',
      failure: signed('answer', { kind: 'permanent', code: 'http_501' }),
      counts: 'success',
    },
    {
      title: 'a mail that is refused for good',
      failure: signed('answer', { kind: 'permanent', code: 'smtp_550' }),
      counts: 'success',
    },
    {
      title: 'what a handler says is final',
      failure: { kind: 'permanent', code: 'PermanentError' },
      counts: 'nothing',
    },
    {
      title: 'what an application calls like an answer',
      failure: { kind: 'permanent', code: 'http_404' },
      counts: 'nothing',
    },
    { title: 'a bug', failure: { kind: 'programming', code: 'TypeError' }, counts: 'nothing' },
    {
      title: 'an error that says nothing',
      failure: { kind: 'unknown', code: 'unclassified' },
      counts: 'nothing',
    },
    {
      title: 'an unknown error about a status',
      failure: { kind: 'unknown', code: 'http_600' },
      counts: 'nothing',
    },
  ])('$title is counted as a $counts', ({ failure, counts }) => {
    const bench = new Bench({ breaker: BREAKER });
    bench.fail(4, failure);
    expect(bench.circuit).toBe(counts === 'failure' ? 'open' : 'closed');
    // Four failures open it, unless it knows of more calls than twice as many.
    if (counts !== 'failure') bench.fail(1, failure).fail(4);
    expect(bench.circuit).toBe(counts === 'success' ? 'closed' : 'open');
    const probed = new Bench({ breaker: BREAKER }).open().later(10_000);
    probed.fail(1, failure);
    expect(probed.circuit).toBe({ failure: 'open', success: 'closed', nothing: 'half_open' }[counts]);
  });

  it('an answer that refuses is as good a sign of recovery as one that agrees', () => {
    const bench = new Bench({ breaker: { ...BREAKER, successes: 2 } }).open().later(10_000);
    const notFound = classify(Object.assign(new Error('no such card'), { status: 404 }));
    bench.fail(1, notFound);
    expect(bench.circuit).toBe('half_open');
    bench.fail(1, notFound);
    expect(bench.circuit).toBe('closed');
  });

  it('the first word is the last: what is said later does not count', () => {
    const bench = new Bench({ breaker: BREAKER });
    for (let call = 0; call < 8; call += 1) {
      const pass = bench.enter();
      pass.succeeded({});
      pass.failed(undefined, REFUSED, {});
      pass.leave();
    }
    expect(bench.circuit).toBe('closed');
  });

  it('without a breaker nothing opens it but a person, and it is held and let go by them', () => {
    const bench = new Bench({ breaker: false });
    bench.fail(1_000);
    expect(bench.circuit).toBe('closed');
    bench.dependency.force('open');
    bench.dice = 0;
    expect(bench.held()).toMatchObject({ cause: 'circuit_open', retryAfterMs: 30_000 });
    bench.dependency.force('closed');
    bench.enter();
    bench.dependency.resetCircuit();
    expect(bench.circuit).toBe('closed');
    expect(bench.kinds()).toEqual([
      'circuit_changed forced_open',
      'circuit_changed forced_closed',
      'circuit_changed closed',
    ]);
  });

  it.each<{ title: string; failure: Failure }>([
    {
      title: 'that the library noticed',
      failure: signed('timeout', { kind: 'in_doubt', code: 'timeout' }),
    },
    { title: 'of a connection', failure: classify(coded('UND_ERR_CONNECT_TIMEOUT')) },
    { title: 'of a socket', failure: classify(coded('ETIMEDOUT')) },
    { title: 'that has its own name', failure: classify(named('TimeoutError')) },
  ])('tells of a timeout $title, and of whose', ({ failure }) => {
    const bench = new Bench({ breaker: false });
    bench.enter().failed(undefined, failure, SUBJECT);
    expect(bench.told).toEqual([{ kind: 'dependency_timeout', ...SUBJECT, dependency: 'gateway' }]);
  });

  it('tells of no timeout where there was none', () => {
    const bench = new Bench({ breaker: false });
    bench.fail(1).fail(1, { kind: 'permanent', code: 'http_404' });
    expect(bench.told).toEqual([]);
  });
});

describe('Dependency: the retry budget', () => {
  /** A tenth of the first tries, and nothing besides. */
  const TENTH = { retryBudget: { ratio: 0.1, minPerSecond: 0 } };

  it('lets one retry through for each ten first tries', () => {
    const bench = new Bench(TENTH);
    const pass = bench.enter();
    for (let call = 0; call < 25; call += 1) expect(pass.begin(false, SUBJECT)).toBeUndefined();
    expect([1, 2, 3].map(() => pass.begin(true, SUBJECT)?.cause)).toEqual([
      undefined,
      undefined,
      'retry_budget_spent',
    ]);
  });

  it('tells whom it denied, when to come again, and shows it for ten seconds', () => {
    const bench = new Bench(TENTH);
    bench.dice = 0;
    expect(bench.enter().begin(true, SUBJECT)).toEqual({
      kind: 'rejected',
      dependency: 'gateway',
      cause: 'retry_budget_spent',
      retryAfterMs: 1_000,
    });
    expect(bench.told).toEqual([{ kind: 'retry_budget_denied', ...SUBJECT, dependency: 'gateway' }]);
    bench.dice = 1;
    expect(bench.enter().begin(true, SUBJECT)?.retryAfterMs).toBe(3_000);
    expect(bench.later(9_999).dependency.state.isBudgetSpent).toBe(true);
    expect(bench.later(1).dependency.state.isBudgetSpent).toBe(false);
  });

  it('never denies a first try, and says nothing of the circuit', () => {
    const bench = new Bench({ retryBudget: { ratio: 0, minPerSecond: 0 }, breaker: BREAKER });
    for (let call = 0; call < 20; call += 1) expect(bench.enter().begin(false, SUBJECT)).toBeUndefined();
    for (let call = 0; call < 20; call += 1) {
      const pass = bench.enter();
      expect(pass.begin(true, SUBJECT)?.cause).toBe('retry_budget_spent');
      pass.leave();
    }
    expect(bench.circuit).toBe('closed');
  });

  it('gives the probe back when the budget keeps a retry from being one', () => {
    const bench = new Bench({ ...TENTH, breaker: BREAKER }).open().later(10_000);
    const retry = bench.enter();
    expect(retry.begin(true, SUBJECT)?.cause).toBe('retry_budget_spent');
    retry.leave();
    bench.enter().succeeded({});
    expect(bench.circuit).toBe('closed');
  });

  it('grants what the floor allows, and again when the window has passed', () => {
    const bench = new Bench({ retryBudget: { ratio: 0, minPerSecond: 0.2, windowMs: 10_000 } });
    const pass = bench.enter();
    const grants = (): boolean[] => [1, 2, 3].map(() => pass.begin(true, SUBJECT) === undefined);
    expect(grants()).toEqual([true, true, false]);
    bench.later(11_000);
    expect(grants()).toEqual([true, true, false]);
  });

  it('is asked nothing where it is switched off', () => {
    const bench = new Bench({ retryBudget: false });
    const pass = bench.enter();
    for (let call = 0; call < 1_000; call += 1) expect(pass.begin(true, SUBJECT)).toBeUndefined();
    expect(bench.told).toEqual([]);
  });
});
