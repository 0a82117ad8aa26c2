import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { classify } from '../../resilience/classify/classify.js';
import { type Effect, EFFECTS } from '../../operation/effect.js';
import { rowsOf } from '../../../../../test/support/table.js';
import { DEFAULT_SCHEDULE, type ReconcileSchedule } from './reconcile.options.js';
import type { FailureKind } from '../../operation/reasons.js';
import {
  type AttemptFacts,
  type NextStep,
  decideFailure,
  decideRejected,
  decideStart,
  type RetryPolicy,
  decisionOf,
} from './decide.js';

/** Nobody can be asked about a doubt. */
const policy: RetryPolicy = {
  attempts: 3,
  crashes: 2,
  backoff: { baseMs: 1_000, capMs: 60_000 },
  schedule: undefined,
  isCallers: false,
};
const half = (): number => 0.5;

const KINDS = ['transient', 'in_doubt', 'permanent', 'programming', 'unknown'] as const;

/** The effects, and `keyed` once the service has forgotten the key. */
type Situation = Effect | 'keyed, forgotten';

/** How long each stays repeatable in these tests, in ms. */
const REPEATABLE_MS: Record<Situation, number> = {
  natural: Infinity,
  transactional: Infinity,
  keyed: 86_400_000,
  'keyed, forgotten': 0,
  reconciled: 0,
  unrepeatable: 0,
};

function effectOf(situation: Situation): Effect {
  return situation === 'keyed, forgotten' ? 'keyed' : situation;
}

function facts(changes: Partial<AttemptFacts> = {}): AttemptFacts {
  return {
    attempt: 1,
    failures: 0,
    lastDelayMs: undefined,
    isDoubtful: false,
    remainingMs: undefined,
    repeatableMs: Infinity,
    ...changes,
  };
}

/** Who can be asked about a doubt, and when the first question is due, in ms. */
const ASKED = [
  { who: 'a person', schedule: undefined, reconcileInMs: undefined },
  { who: 'the service', schedule: DEFAULT_SCHEDULE, reconcileInMs: 5_000 },
] as const;

/** What an end in the table means. `doubtful`: an attempt may have had its effect. */
const END: Readonly<Record<string, object>> = {
  retrying: { status: 'retrying', delayMs: 500, isDoubtful: false },
  'retrying, doubtful': { status: 'retrying', delayMs: 500, isDoubtful: true },
  'retries exhausted': { status: 'dead', reason: 'retries_exhausted', isDoubtful: false },
  'retries exhausted, doubtful': { status: 'dead', reason: 'retries_exhausted', isDoubtful: true },
  'permanent error': { status: 'dead', reason: 'permanent_error', isDoubtful: false },
  'permanent error, doubtful': { status: 'dead', reason: 'permanent_error', isDoubtful: true },
  'in doubt': { status: 'in_doubt', reason: 'in_doubt', isDoubtful: true },
};

/**
 * How an operation goes on after a failure. Natural effects are repeatable by nature: whether one happened does not
 * matter. A transactional one rolled back. The service deduplicates a keyed one: it is safe to repeat, but may be there
 * already; once the key is forgotten, it is not. A reconciled one is not tried again before somebody has said whether it
 * happened, and of an unrepeatable one only what certainly did not happen is. What was in doubt before stays so, whatever
 * comes after it.
 */
const TABLE = rowsOf<
  | 'effect'
  | 'failure'
  | 'can be asked'
  | 'attempts left'
  | 'attempts left, earlier doubt'
  | 'last attempt'
  | 'last attempt, earlier doubt'
>(`
| effect           | failure     | can be asked | attempts left             | attempts left, earlier doubt | last attempt                | last attempt, earlier doubt |
| ---------------- | ----------- | ------------ | ------------------------- | ---------------------------- | --------------------------- | --------------------------- |
| natural          | transient   | either       | retrying                  | retrying, doubtful           | retries exhausted           | retries exhausted, doubtful |
| natural          | in_doubt    | either       | retrying                  | retrying, doubtful           | retries exhausted           | retries exhausted, doubtful |
| natural          | permanent   | either       | permanent error           | permanent error, doubtful    | permanent error             | permanent error, doubtful   |
| natural          | programming | either       | permanent error           | permanent error, doubtful    | permanent error             | permanent error, doubtful   |
| natural          | unknown     | either       | retrying                  | retrying, doubtful           | retries exhausted           | retries exhausted, doubtful |
| transactional    | transient   | either       | retrying                  | retrying, doubtful           | retries exhausted           | retries exhausted, doubtful |
| transactional    | in_doubt    | either       | retrying                  | retrying, doubtful           | retries exhausted           | retries exhausted, doubtful |
| transactional    | permanent   | either       | permanent error           | permanent error, doubtful    | permanent error             | permanent error, doubtful   |
| transactional    | programming | either       | permanent error           | permanent error, doubtful    | permanent error             | permanent error, doubtful   |
| transactional    | unknown     | either       | retrying                  | retrying, doubtful           | retries exhausted           | retries exhausted, doubtful |
| keyed            | transient   | a person     | retrying                  | retrying, doubtful           | retries exhausted           | retries exhausted, doubtful |
| keyed            | transient   | the service  | retrying                  | retrying, doubtful           | retries exhausted           | in doubt                    |
| keyed            | in_doubt    | a person     | retrying, doubtful        | retrying, doubtful           | retries exhausted, doubtful | retries exhausted, doubtful |
| keyed            | in_doubt    | the service  | retrying, doubtful        | retrying, doubtful           | in doubt                    | in doubt                    |
| keyed            | permanent   | a person     | permanent error           | permanent error, doubtful    | permanent error             | permanent error, doubtful   |
| keyed            | permanent   | the service  | permanent error           | in doubt                     | permanent error             | in doubt                    |
| keyed            | programming | a person     | permanent error, doubtful | permanent error, doubtful    | permanent error, doubtful   | permanent error, doubtful   |
| keyed            | programming | the service  | in doubt                  | in doubt                     | in doubt                    | in doubt                    |
| keyed            | unknown     | a person     | retrying, doubtful        | retrying, doubtful           | retries exhausted, doubtful | retries exhausted, doubtful |
| keyed            | unknown     | the service  | retrying, doubtful        | retrying, doubtful           | in doubt                    | in doubt                    |
| keyed, forgotten | transient   | either       | retrying                  | in doubt                     | retries exhausted           | in doubt                    |
| keyed, forgotten | in_doubt    | either       | in doubt                  | in doubt                     | in doubt                    | in doubt                    |
| keyed, forgotten | permanent   | either       | permanent error           | in doubt                     | permanent error             | in doubt                    |
| keyed, forgotten | programming | either       | in doubt                  | in doubt                     | in doubt                    | in doubt                    |
| keyed, forgotten | unknown     | either       | in doubt                  | in doubt                     | in doubt                    | in doubt                    |
| reconciled       | transient   | either       | retrying                  | in doubt                     | retries exhausted           | in doubt                    |
| reconciled       | in_doubt    | either       | in doubt                  | in doubt                     | in doubt                    | in doubt                    |
| reconciled       | permanent   | either       | permanent error           | in doubt                     | permanent error             | in doubt                    |
| reconciled       | programming | either       | in doubt                  | in doubt                     | in doubt                    | in doubt                    |
| reconciled       | unknown     | either       | in doubt                  | in doubt                     | in doubt                    | in doubt                    |
| unrepeatable     | transient   | either       | retrying                  | in doubt                     | retries exhausted           | in doubt                    |
| unrepeatable     | in_doubt    | either       | in doubt                  | in doubt                     | in doubt                    | in doubt                    |
| unrepeatable     | permanent   | either       | permanent error           | in doubt                     | permanent error             | in doubt                    |
| unrepeatable     | programming | either       | in doubt                  | in doubt                     | in doubt                    | in doubt                    |
| unrepeatable     | unknown     | either       | in doubt                  | in doubt                     | in doubt                    | in doubt                    |
`);

const COLUMNS = [
  { when: 'attempts left', isLast: false, isDoubtful: false },
  { when: 'attempts left, earlier doubt', isLast: false, isDoubtful: true },
  { when: 'last attempt', isLast: true, isDoubtful: false },
  { when: 'last attempt, earlier doubt', isLast: true, isDoubtful: true },
] as const;

const CASES = TABLE.flatMap((row) =>
  COLUMNS.flatMap((column) =>
    ASKED.filter(({ who }) => ['either', who].includes(row['can be asked'])).map((asked) => ({
      situation: row.effect as Situation,
      kind: row.failure as FailureKind,
      end: row[column.when],
      ...column,
      ...asked,
    })),
  ),
);

/** What the tables tell; why it was decided so is told further down. */
function withoutDecision({ decision: _decision, ...rest }: NextStep): object {
  return rest;
}

describe('decideFailure', () => {
  it('is told by this table for every effect', () => {
    const effects = new Set(TABLE.map(({ effect }) => effect));
    expect([...effects].toSorted()).toEqual([...EFFECTS, 'keyed, forgotten'].toSorted());
    expect(CASES).toHaveLength(6 * 5 * 2 * 2 * 2);
  });

  it.each(CASES)(
    '$situation, $kind failure, $when, $who can be asked: $end',
    ({ situation, kind, isLast, isDoubtful, end, schedule, reconcileInMs }) => {
      const seen = facts({
        attempt: isLast ? 3 : 2,
        isDoubtful,
        repeatableMs: REPEATABLE_MS[situation],
      });
      const failure = { kind, code: 'test' };
      const expected = end === 'in doubt' ? { ...END[end], reconcileInMs } : END[end];
      const decision = decideFailure(failure, effectOf(situation), seen, { ...policy, schedule }, half);
      expect(withoutDecision(decision)).toStrictEqual(expected);
    },
  );

  it.each<{ title: string; changes: Partial<ReconcileSchedule>; reconcileInMs: number }>([
    { title: 'at the first time of the plan', changes: { afterMs: [250, 900] }, reconcileInMs: 250 },
    {
      title: 'after the steady interval, if the plan begins with it',
      changes: { afterMs: [], thenEveryMs: 700 },
      reconcileInMs: 700,
    },
    {
      title: 'at the end of the late-arrival window, if that is earlier',
      changes: { lateArrivalMs: 3_000 },
      reconcileInMs: 3_000,
    },
    {
      title: 'at the end of the plan, if that is earlier',
      changes: { untilMs: 2_000 },
      reconcileInMs: 2_000,
    },
    { title: 'after a whole number of milliseconds', changes: { afterMs: [0.5] }, reconcileInMs: 1 },
  ])('has the service asked about a doubt $title', ({ changes, reconcileInMs }) => {
    const failure = { kind: 'in_doubt', code: 'test' } as const;
    const seen = facts({ repeatableMs: 0 });
    const asking = { ...policy, schedule: { ...DEFAULT_SCHEDULE, ...changes } };
    expect(decideFailure(failure, 'reconciled', seen, asking, half)).toMatchObject({
      status: 'in_doubt',
      reconcileInMs,
    });
  });

  it.each([
    { repeatableMs: 501, end: { status: 'retrying', delayMs: 500, isDoubtful: true } },
    { repeatableMs: 500, end: { status: 'in_doubt', reconcileInMs: 5_000 } },
    { repeatableMs: -10, end: { status: 'in_doubt', reconcileInMs: 5_000 } },
  ])(
    'asks about a keyed doubt as soon as the key is forgotten before the next attempt: $repeatableMs ms left, a wait of 500 ms',
    ({ repeatableMs, end }) => {
      const failure = { kind: 'in_doubt', code: 'test' } as const;
      const asking = { ...policy, schedule: DEFAULT_SCHEDULE };
      expect(decideFailure(failure, 'keyed', facts({ repeatableMs }), asking, half)).toMatchObject(end);
    },
  );

  it.each(['reconciled', 'unrepeatable'] as const)(
    'a %s effect that did not happen is tried again, and no more often than the policy allows',
    (effect) => {
      const failure = { kind: 'transient', code: 'test' } as const;
      const statuses = [1, 2, 3, 4].map(
        (attempt) =>
          decideFailure(failure, effect, facts({ attempt, repeatableMs: -1 }), policy, half).status,
      );
      expect(statuses).toEqual(['retrying', 'retrying', 'dead', 'dead']);
    },
  );

  it.each([
    { attempt: 1, failures: 0, delayMs: 500 },
    { attempt: 2, failures: 1, delayMs: 1_000 },
    { attempt: 2, failures: 0, delayMs: 500 },
  ])(
    'backs off by recorded failures, not by crashes: $failures failures before attempt $attempt give $delayMs ms',
    ({ attempt, failures, delayMs }) => {
      const decision = decideFailure(
        { kind: 'transient', code: 'test' },
        'natural',
        facts({ attempt, failures }),
        policy,
        half,
      );
      expect(decision).toEqual({ status: 'retrying', delayMs, isDoubtful: false, decision: 'backoff' });
    },
  );

  it.each([
    { retryAfterMs: 470, delayMs: 500 },
    { retryAfterMs: 0, delayMs: 500 },
    { retryAfterMs: 501, delayMs: 527 },
    { retryAfterMs: 90_000, delayMs: 90_500 },
  ])(
    'comes back a little after Retry-After, and never before it: $retryAfterMs ms gives $delayMs ms',
    ({ retryAfterMs, delayMs }) => {
      const failure = { kind: 'transient', code: 'http_429', retryAfterMs } as const;
      expect(decideFailure(failure, 'unrepeatable', facts(), policy, half)).toMatchObject({ delayMs });
    },
  );

  it.each([
    { remainingMs: 501, status: 'retrying' },
    { remainingMs: 500, status: 'dead', reason: 'time_budget_exceeded' },
    { remainingMs: 0, status: 'dead', reason: 'time_budget_exceeded' },
    { remainingMs: -1, status: 'dead', reason: 'time_budget_exceeded' },
  ])(
    'with $remainingMs ms left and a wait of 500 ms, the operation is $status',
    ({ remainingMs, ...end }) => {
      const failure = { kind: 'transient', code: 'test' } as const;
      expect(decideFailure(failure, 'natural', facts({ remainingMs }), policy, half)).toMatchObject(end);
    },
  );

  it('counts Retry-After against the time budget', () => {
    const failure = { kind: 'transient', code: 'http_429', retryAfterMs: 5_000 } as const;
    expect(decideFailure(failure, 'natural', facts({ remainingMs: 4_000 }), policy, half)).toEqual({
      status: 'dead',
      reason: 'time_budget_exceeded',
      isDoubtful: false,
      decision: 'time_budget_spent',
    });
  });

  it.each<{ kind: FailureKind; isDoubtful: boolean; repeatableMs: number; status: string }>([
    { kind: 'in_doubt', isDoubtful: false, repeatableMs: 501, status: 'retrying' },
    { kind: 'in_doubt', isDoubtful: false, repeatableMs: 500, status: 'in_doubt' },
    { kind: 'in_doubt', isDoubtful: false, repeatableMs: -10, status: 'in_doubt' },
    { kind: 'unknown', isDoubtful: false, repeatableMs: -10, status: 'in_doubt' },
    { kind: 'transient', isDoubtful: true, repeatableMs: 501, status: 'retrying' },
    { kind: 'transient', isDoubtful: true, repeatableMs: 500, status: 'in_doubt' },
    { kind: 'transient', isDoubtful: false, repeatableMs: -10, status: 'retrying' },
  ])(
    'a keyed $kind failure, earlier doubt $isDoubtful, with the key remembered for $repeatableMs ms and a wait of 500 ms: $status',
    ({ kind, isDoubtful, repeatableMs, status }) => {
      const decision = decideFailure(
        { kind, code: 'test' },
        'keyed',
        facts({ isDoubtful, repeatableMs }),
        policy,
        half,
      );
      expect(decision.status).toBe(status);
    },
  );

  it.each<[Effect, string]>([
    ['keyed', 'retrying'],
    ['natural', 'dead'],
    ['transactional', 'dead'],
    ['reconciled', 'dead'],
    ['unrepeatable', 'dead'],
  ])('reads status 409 of a %s effect as %s: only a key can be in progress', (effect, status) => {
    const failure = classify(Object.assign(new Error('busy'), { status: 409 }));
    const seen = facts({ repeatableMs: REPEATABLE_MS[effect] });
    expect(decideFailure(failure, effect, seen, policy, half).status).toBe(status);
  });

  it.each(EFFECTS)('takes the word of an application for status 409 of a %s effect', (effect) => {
    const failure = { kind: 'transient', code: 'http_409' } as const;
    const seen = facts({ repeatableMs: REPEATABLE_MS[effect] });
    expect(decideFailure(failure, effect, seen, policy, half).status).toBe('retrying');
  });

  it.each(
    [1, 3, 9].flatMap((attempt) =>
      [0, -1].flatMap((repeatableMs) => KINDS.map((kind) => ({ attempt, repeatableMs, kind }))),
    ),
  )(
    'a keyed $kind failure of attempt $attempt with an earlier doubt is in doubt when the key is remembered for $repeatableMs ms',
    ({ attempt, repeatableMs, kind }) => {
      const seen = facts({ attempt, repeatableMs, isDoubtful: true, remainingMs: -1 });
      expect(decideFailure({ kind, code: 'test' }, 'keyed', seen, policy, half)).toStrictEqual({
        status: 'in_doubt',
        reason: 'in_doubt',
        isDoubtful: true,
        reconcileInMs: undefined,
        decision: 'key_forgotten',
      });
    },
  );

  it.each<[FailureKind, object]>([
    ['programming', { status: 'in_doubt' }],
    ['unknown', { status: 'in_doubt' }],
    ['in_doubt', { status: 'in_doubt' }],
    ['permanent', { status: 'dead', reason: 'permanent_error', isDoubtful: false }],
    ['transient', { status: 'dead', reason: 'retries_exhausted', isDoubtful: false }],
  ])(
    'a keyed %s failure of the last attempt, without an earlier doubt and with the key forgotten: %o',
    (kind, end) => {
      const seen = facts({ attempt: 3, repeatableMs: 0 });
      expect(decideFailure({ kind, code: 'test' }, 'keyed', seen, policy, half)).toMatchObject(end);
    },
  );

  it.each(['natural', 'transactional'] as const)(
    'a %s effect is never in doubt, however long it is repeatable',
    (effect) => {
      const seen = facts({ attempt: 3, repeatableMs: 0, isDoubtful: true });
      const decision = decideFailure({ kind: 'in_doubt', code: 'test' }, effect, seen, policy, half);
      expect(decision).toEqual({
        status: 'dead',
        reason: 'retries_exhausted',
        isDoubtful: true,
        decision: 'attempts_spent',
      });
    },
  );

  it('never gives up for dead what is doubtful and cannot be repeated', () => {
    const kind = fc.constantFrom(...KINDS);
    const repeatableMs = fc.integer({ min: -1_000, max: 0 });
    const effect = fc.constantFrom<Effect>('keyed', 'reconciled', 'unrepeatable');
    const policies = anyPolicy();
    fc.assert(
      fc.property(
        anyFacts(),
        repeatableMs,
        kind,
        effect,
        policies,
        (seen, repeatableMs, kind, effect, any) => {
          const over = { ...seen, repeatableMs };
          const decision = decideFailure({ kind, code: 'test' }, effect, over, any, half);
          expect(decision.status === 'in_doubt').toBe(decision.isDoubtful);
        },
      ),
    );
  });

  it.each(['reconciled', 'unrepeatable'] as const)(
    'never plans a second run of a %s effect that may have happened, whatever the facts and the policy',
    (effect) => {
      const kind = fc.constantFrom('in_doubt', 'unknown', 'programming');
      fc.assert(
        fc.property(anyFacts(), kind, anyPolicy(), (seen, kind, any) => {
          const decision = decideFailure({ kind, code: 'test' }, effect, seen, any, half);
          expect(decision.status).toBe('in_doubt');
        }),
      );
    },
  );

  it('never plans a retry beyond the attempts, the time budget or the time a doubtful effect stays repeatable', () => {
    const kind = fc.constantFrom(...KINDS);
    fc.assert(
      fc.property(anyFacts(), kind, fc.constantFrom(...EFFECTS), (seen, kind, effect) => {
        const decision = decideFailure({ kind, code: 'test' }, effect, seen, policy, half);
        if (decision.status !== 'retrying') return;
        expect(seen.attempt).toBeLessThan(policy.attempts);
        expect(decision.delayMs).toBeLessThan(seen.remainingMs ?? Infinity);
        if (decision.isDoubtful) expect(decision.delayMs).toBeLessThan(seen.repeatableMs);
      }),
    );
  });

  it('never forgets an earlier doubt', () => {
    const kind = fc.constantFrom(...KINDS);
    fc.assert(
      fc.property(anyFacts(), kind, fc.constantFrom(...EFFECTS), (seen, kind, effect) => {
        const doubtful = { ...seen, isDoubtful: true };
        expect(decideFailure({ kind, code: 'test' }, effect, doubtful, policy, half).isDoubtful).toBe(true);
      }),
    );
  });
});

function anyFacts(): fc.Arbitrary<AttemptFacts> {
  return fc.record({
    attempt: fc.integer({ min: 1, max: 6 }),
    failures: fc.integer({ min: 0, max: 5 }),
    lastDelayMs: fc.option(fc.integer({ min: 0, max: 100_000 }), { nil: undefined }),
    isDoubtful: fc.boolean(),
    remainingMs: fc.option(fc.integer({ min: -1_000, max: 10_000 }), { nil: undefined }),
    repeatableMs: fc.oneof(fc.constant(Infinity), fc.integer({ min: -1_000, max: 10_000 })),
  });
}

function anyPolicy(): fc.Arbitrary<RetryPolicy> {
  return fc.record({
    attempts: fc.integer({ min: 1, max: 6 }),
    crashes: fc.integer({ min: 1, max: 3 }),
    backoff: fc.constant(policy.backoff),
    schedule: fc.constantFrom(undefined, DEFAULT_SCHEDULE),
    isCallers: fc.constant(false),
  });
}

/** A step, or a call: whoever asked for it decides what comes next. */
const callers: RetryPolicy = { ...policy, isCallers: true };

/** What an end in the table means: it is for the caller to wait. */
const CALLERS_END: Readonly<Record<string, object>> = {
  'tried again': { status: 'retrying', delayMs: 0, isDoubtful: false },
  'tried again, doubtful': { status: 'retrying', delayMs: 0, isDoubtful: true },
  'in doubt': { status: 'in_doubt', reason: 'in_doubt', isDoubtful: true },
};

const CALLERS_TABLE = rowsOf<'effect' | 'failure' | 'no earlier doubt' | 'earlier doubt'>(`
| effect           | failure     | no earlier doubt      | earlier doubt         |
| ---------------- | ----------- | --------------------- | --------------------- |
| natural          | transient   | tried again           | tried again, doubtful |
| natural          | in_doubt    | tried again           | tried again, doubtful |
| natural          | permanent   | tried again           | tried again, doubtful |
| natural          | programming | tried again           | tried again, doubtful |
| natural          | unknown     | tried again           | tried again, doubtful |
| transactional    | transient   | tried again           | tried again, doubtful |
| transactional    | in_doubt    | tried again           | tried again, doubtful |
| transactional    | permanent   | tried again           | tried again, doubtful |
| transactional    | programming | tried again           | tried again, doubtful |
| transactional    | unknown     | tried again           | tried again, doubtful |
| keyed            | transient   | tried again           | tried again, doubtful |
| keyed            | in_doubt    | tried again, doubtful | tried again, doubtful |
| keyed            | permanent   | tried again           | tried again, doubtful |
| keyed            | programming | tried again, doubtful | tried again, doubtful |
| keyed            | unknown     | tried again, doubtful | tried again, doubtful |
| keyed, forgotten | transient   | tried again           | in doubt              |
| keyed, forgotten | in_doubt    | in doubt              | in doubt              |
| keyed, forgotten | permanent   | tried again           | in doubt              |
| keyed, forgotten | programming | in doubt              | in doubt              |
| keyed, forgotten | unknown     | in doubt              | in doubt              |
| reconciled       | transient   | tried again           | in doubt              |
| reconciled       | in_doubt    | in doubt              | in doubt              |
| reconciled       | permanent   | tried again           | in doubt              |
| reconciled       | programming | in doubt              | in doubt              |
| reconciled       | unknown     | in doubt              | in doubt              |
| unrepeatable     | transient   | tried again           | in doubt              |
| unrepeatable     | in_doubt    | in doubt              | in doubt              |
| unrepeatable     | permanent   | tried again           | in doubt              |
| unrepeatable     | programming | in doubt              | in doubt              |
| unrepeatable     | unknown     | in doubt              | in doubt              |
`);

const CALLERS_CASES = CALLERS_TABLE.flatMap((row) =>
  (['no earlier doubt', 'earlier doubt'] as const).flatMap((when) =>
    ASKED.map((asked) => ({
      situation: row.effect as Situation,
      kind: row.failure as FailureKind,
      when,
      isDoubtful: when === 'earlier doubt',
      end: row[when],
      ...asked,
    })),
  ),
);

describe('decideFailure: an operation whose caller decides about further attempts', () => {
  it('is told by this table for every effect', () => {
    expect(CALLERS_CASES).toHaveLength(6 * 5 * 2 * 2);
  });

  it.each(CALLERS_CASES)(
    '$situation, $kind failure, $when, $who can be asked: $end, however often and long it was tried',
    ({ situation, kind, isDoubtful, end, schedule, reconcileInMs }) => {
      const expected = end === 'in doubt' ? { ...CALLERS_END[end], reconcileInMs } : CALLERS_END[end];
      const failure = { kind, code: 'test' };
      for (const tried of [{}, { attempt: 9, failures: 8, remainingMs: -1 }]) {
        const seen = facts({ ...tried, isDoubtful, repeatableMs: REPEATABLE_MS[situation] });
        const decision = decideFailure(failure, effectOf(situation), seen, { ...callers, schedule }, half);
        expect(withoutDecision(decision)).toStrictEqual(expected);
      }
    },
  );

  it('leaves the wait to its caller, also that which the service has asked for', () => {
    const failure = { kind: 'transient', code: 'http_429', retryAfterMs: 90_000 } as const;
    expect(decideFailure(failure, 'natural', facts(), callers, half)).toMatchObject({ delayMs: 0 });
  });

  it('leaves a conflict to its caller: status 409 of a natural effect is tried again with it', () => {
    const failure = classify(Object.assign(new Error('busy'), { status: 409 }));
    expect(decideFailure(failure, 'natural', facts(), callers, half).status).toBe('retrying');
  });

  it('is never given up for dead', () => {
    const kind = fc.constantFrom(...KINDS);
    const effect = fc.constantFrom(...EFFECTS);
    fc.assert(
      fc.property(anyFacts(), kind, effect, anyPolicy(), (seen, kind, effect, any) => {
        const own = { ...any, isCallers: true };
        expect(decideFailure({ kind, code: 'test' }, effect, seen, own, half).status).not.toBe('dead');
        expect(decideStart(seen, own)).toBeUndefined();
      }),
    );
  });
});

describe('decideStart', () => {
  // Three attempts, and two of them may vanish with their worker.
  it.each([
    { attempt: 1, failures: 0, reason: undefined },
    { attempt: 2, failures: 0, reason: undefined },
    { attempt: 2, failures: 1, reason: undefined },
    { attempt: 3, failures: 0, reason: 'crash_loop' },
    { attempt: 3, failures: 1, reason: undefined },
    { attempt: 3, failures: 2, reason: undefined },
    { attempt: 4, failures: 0, reason: 'crash_loop' },
    { attempt: 4, failures: 1, reason: 'crash_loop' },
    { attempt: 4, failures: 2, reason: 'crash_loop' },
    { attempt: 4, failures: 3, reason: 'retries_exhausted' },
    { attempt: 9, failures: 8, reason: 'retries_exhausted' },
  ])('attempt $attempt after $failures recorded failures: $reason', ({ attempt, failures, reason }) => {
    expect(decideStart(facts({ attempt, failures }), policy)).toBe(reason);
  });

  it.each([
    { attempt: 1, failures: 0, remainingMs: 0.1, reason: undefined },
    { attempt: 1, failures: 0, remainingMs: 0, reason: 'time_budget_exceeded' },
    { attempt: 1, failures: 0, remainingMs: -60_000, reason: 'time_budget_exceeded' },
    { attempt: 2, failures: 1, remainingMs: 1, reason: undefined },
    { attempt: 2, failures: 1, remainingMs: 0, reason: 'time_budget_exceeded' },
    { attempt: 3, failures: 0, remainingMs: -1, reason: 'time_budget_exceeded' },
    { attempt: 4, failures: 3, remainingMs: -1, reason: 'time_budget_exceeded' },
  ])(
    'attempt $attempt with $remainingMs ms of the budget left: $reason',
    ({ attempt, failures, remainingMs, reason }) => {
      expect(decideStart(facts({ attempt, failures, remainingMs }), policy)).toBe(reason);
    },
  );

  it('gives up at the first crash where the policy allows one', () => {
    expect(decideStart(facts({ attempt: 2 }), { ...policy, crashes: 1 })).toBe('crash_loop');
  });

  it.each([
    { attempt: 3, failures: 0, remainingMs: undefined },
    { attempt: 4, failures: 3, remainingMs: undefined },
    { attempt: 1, failures: 0, remainingMs: 0 },
    { attempt: 9, failures: 0, remainingMs: -1 },
  ])(
    'leaves attempt $attempt after $failures failures, with $remainingMs ms left, to a caller who decides',
    (tried) => {
      expect(decideStart(facts(tried), callers)).toBeUndefined();
    },
  );
});

describe('decideRejected', () => {
  it.each([
    { title: 'without a budget, for as long as it takes', remainingMs: undefined, delayMs: 1_000 },
    { title: 'with much of the budget left', remainingMs: 60_000, delayMs: 1_000 },
    { title: 'until the budget is over', remainingMs: 300, delayMs: 300 },
  ])('puts off, tried or not: $title', ({ remainingMs, delayMs }) => {
    for (const attempts of [0, 1, 7])
      expect(decideRejected({ remainingMs, attempts }, 1_000)).toEqual({ kind: 'defer', delayMs });
  });

  it.each([
    { remainingMs: 0, attempts: 1, reason: 'time_budget_exceeded' },
    { remainingMs: -1, attempts: 7, reason: 'time_budget_exceeded' },
    { remainingMs: 0, attempts: 0, reason: 'deferred_too_long' },
    { remainingMs: -86_400_000, attempts: 0, reason: 'deferred_too_long' },
  ])(
    'gives up with $remainingMs ms left after $attempts attempts: $reason',
    ({ remainingMs, attempts, reason }) => {
      expect(decideRejected({ remainingMs, attempts }, 1_000)).toEqual({ kind: 'give_up', reason });
    },
  );

  it('puts off by no more than the hold and what is left, and never by nothing', () => {
    const ms = fc.double({ min: -1e9, max: 1e9, noNaN: true });
    fc.assert(
      fc.property(
        fc.option(ms, { nil: undefined }),
        fc.nat(),
        fc.double({ min: 1, max: 1e9, noNaN: true }),
        (remainingMs, attempts, holdMs) => {
          const decision = decideRejected({ remainingMs, attempts }, holdMs);
          if (decision.kind === 'give_up') return remainingMs !== undefined && remainingMs <= 0;
          return decision.delayMs > 0 && decision.delayMs <= Math.min(holdMs, remainingMs ?? Infinity);
        },
      ),
    );
  });
});

describe('the reason of a decision', () => {
  it.each<{
    title: string;
    effect: Effect;
    kind: FailureKind;
    seen: Partial<AttemptFacts>;
    changes: Partial<RetryPolicy>;
    decision: string;
  }>([
    {
      title: 'a failure that may pass',
      effect: 'natural',
      kind: 'transient',
      seen: {},
      changes: {},
      decision: 'backoff',
    },
    {
      title: 'a step or call',
      effect: 'natural',
      kind: 'permanent',
      seen: {},
      changes: { isCallers: true },
      decision: 'callers_turn',
    },
    {
      title: 'what trying again will not help',
      effect: 'natural',
      kind: 'permanent',
      seen: {},
      changes: {},
      decision: 'not_retryable',
    },
    {
      title: 'the last attempt',
      effect: 'natural',
      kind: 'transient',
      seen: { attempt: 3 },
      changes: {},
      decision: 'attempts_spent',
    },
    {
      title: 'a wait beyond the time budget',
      effect: 'natural',
      kind: 'transient',
      seen: { remainingMs: 500 },
      changes: {},
      decision: 'time_budget_spent',
    },
    {
      title: 'an effect that may have happened',
      effect: 'unrepeatable',
      kind: 'in_doubt',
      seen: {},
      changes: {},
      decision: 'may_have_happened',
    },
    {
      title: 'an earlier attempt that may have had its effect',
      effect: 'reconciled',
      kind: 'transient',
      seen: { isDoubtful: true, repeatableMs: 0 },
      changes: {},
      decision: 'may_have_happened',
    },
    {
      title: 'a key that is forgotten',
      effect: 'keyed',
      kind: 'in_doubt',
      seen: { repeatableMs: 0 },
      changes: {},
      decision: 'key_forgotten',
    },
    {
      title: 'a key that will be forgotten before the next attempt',
      effect: 'keyed',
      kind: 'in_doubt',
      seen: { repeatableMs: 500 },
      changes: {},
      decision: 'key_forgotten',
    },
    {
      title: 'a doubt that is asked about before it is given up for its attempts',
      effect: 'keyed',
      kind: 'in_doubt',
      seen: { attempt: 3 },
      changes: { schedule: DEFAULT_SCHEDULE },
      decision: 'attempts_spent',
    },
  ])('of $title is $decision', ({ effect, kind, seen, changes, decision }) => {
    const failure = { kind, code: 'test' };
    expect(decideFailure(failure, effect, facts(seen), { ...policy, ...changes }, half).decision).toBe(
      decision,
    );
  });

  it('tells a wait that the service asked for from the own one', () => {
    const asked = (retryAfterMs: number): string =>
      decideFailure({ kind: 'transient', code: 'http_429', retryAfterMs }, 'natural', facts(), policy, half)
        .decision;
    expect(asked(501)).toBe('retry_after');
    expect(asked(470)).toBe('backoff');
  });

  it.each([
    ['time_budget_exceeded', 'time_budget_spent'],
    ['deferred_too_long', 'time_budget_spent'],
    ['retries_exhausted', 'attempts_spent'],
    ['crash_loop', 'crash_loop'],
    ['payload_invalid', 'not_retryable'],
    ['permanent_error', 'not_retryable'],
  ] as const)('of a letter for %s is %s', (reason, decision) => {
    expect(decisionOf(reason)).toBe(decision);
  });
});
