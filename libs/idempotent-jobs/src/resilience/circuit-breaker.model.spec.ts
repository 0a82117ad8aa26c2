import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CircuitBreaker, type Permit } from './circuit-breaker.js';

type End = 'succeed' | 'fail' | 'ignore';

const SETTINGS = {
  windowMs: 1_200,
  minimumCalls: 4,
  failureShare: 0.5,
  openMs: 1_000,
  maxOpenMs: 6_000,
  successes: 2,
  probeLeaseMs: 700,
};

/** What the breaker is meant to do, said with lists and loops: every call it let through, every result with its time. */
interface Model {
  nowMs: number;
  dice: number;
  kind: 'closed' | 'open' | 'half_open' | 'forced_open' | 'forced_closed';
  /** Counts the phases, so that a call knows whether its own is over. */
  phase: number;
  results: { atMs: number; isFailure: boolean }[];
  untilMs: number;
  openings: number;
  successes: number;
  probe: { call: number; endMs: number } | undefined;
  calls: { phase: number; isOver: boolean }[];
}

interface Real {
  readonly clock: { nowMs: number; dice: number };
  readonly breaker: CircuitBreaker;
  readonly permits: Permit[];
  /** When the leases end of the calls that were let through while half open and have not ended. */
  readonly probes: Map<number, number>;
}

function enter(model: Model, kind: Model['kind']): void {
  model.kind = kind;
  model.phase += 1;
  model.results = [];
  model.successes = 0;
  model.probe = undefined;
}

function open(model: Model): void {
  enter(model, 'open');
  let ms = SETTINGS.openMs;
  for (let time = 0; time < model.openings; time += 1) ms = Math.min(2 * ms, SETTINGS.maxOpenMs);
  model.openings += 1;
  model.untilMs = model.nowMs + ms * (0.8 + 0.4 * model.dice);
}

function close(model: Model): void {
  enter(model, 'closed');
  model.openings = 0;
}

function waitMs(model: Model): number {
  if (model.kind === 'forced_open') return SETTINGS.openMs;
  if (model.kind === 'open') return Math.max(0, model.untilMs - model.nowMs);
  if (model.kind === 'half_open' && model.probe !== undefined)
    return Math.max(0, model.probe.endMs - model.nowMs);
  return 0;
}

function settle(model: Model, call: number, end: End): void {
  const settled = model.calls.at(call);
  if (settled === undefined || settled.isOver) return;
  settled.isOver = true;
  if (settled.phase !== model.phase) return;
  if (model.kind === 'closed' && end !== 'ignore') {
    model.results.push({ atMs: model.nowMs, isFailure: end === 'fail' });
    // A bucket is a twelfth of the window, and the oldest of the twelve began eleven before the present one.
    const since = (Math.floor(model.nowMs / 100) - 11) * 100;
    const known = model.results.filter(({ atMs }) => atMs >= since);
    const failed = known.filter(({ isFailure }) => isFailure).length;
    if (end === 'fail' && known.length >= 4 && failed / known.length >= 0.5) open(model);
  } else if (model.kind === 'half_open' && model.probe?.call === call && model.nowMs < model.probe.endMs) {
    model.probe = undefined;
    if (end === 'fail') open(model);
    else if (end === 'succeed' && ++model.successes === 2) close(model);
  }
}

function checkState(model: Model, { breaker, clock, probes }: Real): void {
  expect(breaker.state.kind).toBe(model.kind);
  expect(breaker.retryAfterMs).toBeCloseTo(waitMs(model), 6);
  if (breaker.state.kind !== 'half_open') probes.clear();
  const alive = [...probes.values()].filter((leaseEndMs) => clock.nowMs < leaseEndMs);
  expect(alive.length).toBeLessThanOrEqual(1);
}

abstract class Step implements fc.Command<Model, Real> {
  check(_model: Readonly<Model>): boolean {
    return true;
  }

  run(model: Model, real: Real): void {
    this.act(model, real);
    checkState(model, real);
  }

  protected abstract act(model: Model, real: Real): void;
  abstract toString(): string;
}

class Acquire extends Step {
  constructor(private readonly dice: number) {
    super();
  }

  protected act(model: Model, real: Real): void {
    model.dice = real.clock.dice = this.dice;
    const expectedMs = waitMs(model);
    const admission = real.breaker.tryAcquire();
    expect(admission.kind).toBe(expectedMs > 0 ? 'open' : 'admitted');
    if (admission.kind === 'open') {
      expect(admission.retryAfterMs).toBeCloseTo(expectedMs * (1 + this.dice / 4), 6);
      return;
    }
    if (real.breaker.state.kind === 'half_open') real.probes.set(real.permits.length, real.clock.nowMs + 700);
    real.permits.push(admission.permit);
    if (model.kind === 'open') enter(model, 'half_open');
    model.calls.push({ phase: model.phase, isOver: false });
    if (model.kind === 'half_open') model.probe = { call: model.calls.length - 1, endMs: model.nowMs + 700 };
  }

  toString(): string {
    return `acquire(${this.dice})`;
  }
}

class Settle extends Step {
  constructor(
    private readonly back: number,
    private readonly end: End,
  ) {
    super();
  }

  override check(model: Readonly<Model>): boolean {
    return this.back < model.calls.length;
  }

  protected act(model: Model, real: Real): void {
    const call = model.calls.length - 1 - this.back;
    settle(model, call, this.end);
    real.permits[call]?.[this.end]();
    real.probes.delete(call);
  }

  toString(): string {
    return `${this.end}(${this.back} calls ago)`;
  }
}

class DependencyPermit extends Step {
  constructor(private readonly ms: number) {
    super();
  }

  protected act(model: Model, real: Real): void {
    model.nowMs += this.ms;
    real.clock.nowMs += this.ms;
  }

  toString(): string {
    return `pass(${this.ms} ms)`;
  }
}

/** Passes exactly the time that a call would be told to wait. */
class Wait extends Step {
  protected act(model: Model, real: Real): void {
    const ms = Math.ceil(waitMs(model));
    model.nowMs += ms;
    real.clock.nowMs += ms;
  }

  toString(): string {
    return 'wait';
  }
}

class Force extends Step {
  constructor(private readonly how: 'forceOpen' | 'forceClosed' | 'reset') {
    super();
  }

  protected act(model: Model, real: Real): void {
    real.breaker[this.how]();
    const isForced = model.kind === 'forced_open' || model.kind === 'forced_closed';
    if (this.how === 'reset') return isForced ? close(model) : undefined;
    const kind = this.how === 'forceOpen' ? 'forced_open' : 'forced_closed';
    if (model.kind !== kind) enter(model, kind);
  }

  toString(): string {
    return this.how;
  }
}

const dice = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });
const acquire = dice.map((drawn) => new Acquire(drawn));
const end = (of: fc.Arbitrary<End>): fc.Arbitrary<Settle> =>
  fc
    .tuple(fc.oneof({ weight: 3, arbitrary: fc.constant(0) }, fc.nat({ max: 30 })), of)
    .map(([back, how]) => new Settle(back, how));
const pass = fc
  .oneof(fc.nat({ max: 150 }), fc.nat({ max: 1_500 }), fc.constantFrom(700, 1_000, 1_200, 7_200, 3_600_000))
  .map((ms) => new DependencyPermit(ms));
const force = fc
  .constantFrom('forceOpen' as const, 'forceClosed' as const, 'reset' as const)
  .map((how) => new Force(how));

function setup(): { model: Model; real: Real } {
  const clock = { nowMs: 5, dice: 0 };
  const breaker = new CircuitBreaker({ ...SETTINGS, now: () => clock.nowMs, random: () => clock.dice });
  const model: Model = {
    nowMs: 5,
    dice: 0,
    kind: 'closed',
    phase: 0,
    results: [],
    untilMs: 0,
    openings: 0,
    successes: 0,
    probe: undefined,
    calls: [],
  };
  return { model, real: { clock, breaker, permits: [], probes: new Map() } };
}

describe('CircuitBreaker, compared with a model', () => {
  const usual = [
    acquire,
    acquire,
    end(fc.constantFrom('succeed', 'fail', 'ignore')),
    end(fc.constant('fail')),
    end(fc.constant('succeed')),
    pass,
    fc.constant(new Wait()),
  ];

  it('does what the model says, whatever calls, results and gaps follow on each other', () => {
    fc.assert(
      fc.property(fc.commands(usual, { maxCommands: 120, size: 'max' }), (commands) => {
        fc.modelRun(setup, commands);
      }),
      { numRuns: 400 },
    );
  });

  it('does what the model says when people force it in between', () => {
    fc.assert(
      fc.property(fc.commands([...usual, force], { maxCommands: 100, size: 'max' }), (commands) => {
        fc.modelRun(setup, commands);
      }),
      { numRuns: 200 },
    );
  });

  it('is never stuck: whatever happened, two probes that succeed after the longest wait close it', () => {
    fc.assert(
      fc.property(fc.commands(usual, { maxCommands: 80, size: 'max' }), (commands) => {
        const { model, real } = setup();
        fc.modelRun(() => ({ model, real }), commands);
        real.clock.nowMs += 6_000 * 1.2 + 700;
        for (let probe = 0; probe < 2; probe += 1) {
          const admission = real.breaker.tryAcquire();
          expect(admission.kind).toBe('admitted');
          if (admission.kind === 'admitted') admission.permit.succeed();
        }
        expect(real.breaker.state.kind).toBe('closed');
      }),
      { numRuns: 200 },
    );
  });
});
