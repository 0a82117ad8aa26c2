import { describe, expect, it } from 'vitest';
import { type ClaimRequest, type ClaimRow, readAnswer } from '../../ledger/claim/claim.js';
import { resolveProcessorOptions } from './processor.options.js';
import { type Effect, EFFECTS, repeatableForMs } from '../../operation/effect.js';
import type { OperationStatus } from '../../operation/status.js';
import { DEFAULT_SCHEDULE } from './reconcile.options.js';
import type { Failure } from '../../operation/failure.js';
import type { FailureKind } from '../../operation/reasons.js';
import { decideFailure, decideStart, type RetryPolicy } from './decide.js';

/* What becomes of an operation whose attempt has ended, in one table: the promise that each effect makes. */

/**
 * How an attempt ends that does not return. `vanished`: its worker was killed, or lost its lease; the next delivery finds
 * out. `vanished twice`: so did the one before, and the policy allows no third.
 */
type End = FailureKind | 'timeout' | 'vanished' | 'vanished twice';

/** Whether the processor has a `reconcile()`, and whether the effect may still be repeated if it happened. */
type Circumstance =
  | 'reconcilable, still repeatable'
  | 'reconcilable, no longer repeatable'
  | 'not reconcilable, still repeatable'
  | 'not reconcilable, no longer repeatable';

/** `impossible`: no processor can be in these circumstances. */
type Next = 'retrying' | 'in doubt, reconciled' | 'in doubt, for a person' | 'dead' | 'impossible';

/**
 * The columns, from left to right: reconcilable and still repeatable; reconcilable, no longer repeatable; not reconcilable,
 * still repeatable; neither. More attempts are left, and none has left a doubt before. A natural or transactional operation
 * that is no longer repeatable has had an attempt whose processor declared a more careful effect then.
 */
const TABLE: Record<Effect, Record<End, Record<Circumstance, Next>>> = {
  natural: {
    transient: row('impossible', 'impossible', 'retrying', 'retrying'),
    in_doubt: row('impossible', 'impossible', 'retrying', 'retrying'),
    permanent: row('impossible', 'impossible', 'dead', 'dead'),
    programming: row('impossible', 'impossible', 'dead', 'dead'),
    unknown: row('impossible', 'impossible', 'retrying', 'retrying'),
    timeout: row('impossible', 'impossible', 'retrying', 'retrying'),
    vanished: row('impossible', 'impossible', 'retrying', 'in doubt, for a person'),
    'vanished twice': row('impossible', 'impossible', 'dead', 'in doubt, for a person'),
  },
  // One that vanishes leaves nothing, not even its start.
  transactional: {
    transient: row('impossible', 'impossible', 'retrying', 'retrying'),
    in_doubt: row('impossible', 'impossible', 'retrying', 'retrying'),
    permanent: row('impossible', 'impossible', 'dead', 'dead'),
    programming: row('impossible', 'impossible', 'dead', 'dead'),
    unknown: row('impossible', 'impossible', 'retrying', 'retrying'),
    timeout: row('impossible', 'impossible', 'retrying', 'retrying'),
    vanished: row('impossible', 'impossible', 'retrying', 'retrying'),
    'vanished twice': row('impossible', 'impossible', 'retrying', 'retrying'),
  },
  keyed: {
    transient: row('retrying', 'retrying', 'retrying', 'retrying'),
    in_doubt: row('retrying', 'in doubt, reconciled', 'retrying', 'in doubt, for a person'),
    permanent: row('dead', 'dead', 'dead', 'dead'),
    programming: row('in doubt, reconciled', 'in doubt, reconciled', 'dead', 'in doubt, for a person'),
    unknown: row('retrying', 'in doubt, reconciled', 'retrying', 'in doubt, for a person'),
    timeout: row('retrying', 'in doubt, reconciled', 'retrying', 'in doubt, for a person'),
    vanished: row('retrying', 'in doubt, reconciled', 'retrying', 'in doubt, for a person'),
    'vanished twice': row('dead', 'in doubt, reconciled', 'dead', 'in doubt, for a person'),
  },
  reconciled: {
    transient: row('impossible', 'retrying', 'impossible', 'impossible'),
    in_doubt: row('impossible', 'in doubt, reconciled', 'impossible', 'impossible'),
    permanent: row('impossible', 'dead', 'impossible', 'impossible'),
    programming: row('impossible', 'in doubt, reconciled', 'impossible', 'impossible'),
    unknown: row('impossible', 'in doubt, reconciled', 'impossible', 'impossible'),
    timeout: row('impossible', 'in doubt, reconciled', 'impossible', 'impossible'),
    vanished: row('impossible', 'in doubt, reconciled', 'impossible', 'impossible'),
    'vanished twice': row('impossible', 'in doubt, reconciled', 'impossible', 'impossible'),
  },
  unrepeatable: {
    transient: row('impossible', 'impossible', 'impossible', 'retrying'),
    in_doubt: row('impossible', 'impossible', 'impossible', 'in doubt, for a person'),
    permanent: row('impossible', 'impossible', 'impossible', 'dead'),
    programming: row('impossible', 'impossible', 'impossible', 'in doubt, for a person'),
    unknown: row('impossible', 'impossible', 'impossible', 'in doubt, for a person'),
    timeout: row('impossible', 'impossible', 'impossible', 'in doubt, for a person'),
    vanished: row('impossible', 'impossible', 'impossible', 'in doubt, for a person'),
    'vanished twice': row('impossible', 'impossible', 'impossible', 'in doubt, for a person'),
  },
};

function row(
  reconcilable: Next,
  reconcilableOnly: Next,
  repeatable: Next,
  neither: Next,
): Record<Circumstance, Next> {
  return {
    'reconcilable, still repeatable': reconcilable,
    'reconcilable, no longer repeatable': reconcilableOnly,
    'not reconcilable, still repeatable': repeatable,
    'not reconcilable, no longer repeatable': neither,
  };
}

const FACTS: Record<Circumstance, { asks: boolean; isPast: boolean; repeatableMs: number }> = {
  'reconcilable, still repeatable': { asks: true, isPast: false, repeatableMs: 60_000 },
  'reconcilable, no longer repeatable': { asks: true, isPast: true, repeatableMs: -1 },
  'not reconcilable, still repeatable': { asks: false, isPast: false, repeatableMs: 60_000 },
  'not reconcilable, no longer repeatable': { asks: false, isPast: true, repeatableMs: -1 },
};

const CASES = (Object.keys(TABLE) as Effect[]).flatMap((effect) =>
  (Object.keys(TABLE[effect]) as End[]).flatMap((end) =>
    (Object.keys(FACTS) as Circumstance[]).map((circumstance) => ({
      effect,
      end,
      circumstance,
      next: TABLE[effect][end][circumstance],
    })),
  ),
);

describe('the next state of an operation whose attempt did not return', () => {
  it('is told by this table for every effect, end and circumstance', () => {
    expect(Object.keys(TABLE).toSorted()).toEqual([...EFFECTS].toSorted());
    expect(CASES).toHaveLength(5 * 8 * 4);
  });

  it.each(CASES.filter(({ next }) => next !== 'impossible'))(
    '$effect, $end, $circumstance: $next',
    ({ effect, end, circumstance, next }) => {
      expect(nextState(effect, end, circumstance)).toBe(next);
    },
  );

  it.each(CASES.filter(({ end }) => end === 'transient'))(
    '$effect, $circumstance: is left out of the table only where no processor can be so ($next)',
    ({ effect, circumstance, next }) => {
      expect(canBe(effect, circumstance)).toBe(next !== 'impossible');
    },
  );

  it('is left out for all ends of a circumstance, or for none', () => {
    for (const { effect, circumstance, next } of CASES)
      expect(next === 'impossible').toBe(TABLE[effect].transient[circumstance] === 'impossible');
  });
});

/** By the real functions: what is decided after a failure, or what the next claim is told and decides. */
function nextState(effect: Effect, end: End, circumstance: Circumstance): Next {
  switch (end) {
    case 'vanished':
      return afterVanishing(effect, 1, circumstance);
    case 'vanished twice':
      return afterVanishing(effect, 2, circumstance);
    case 'timeout':
      return afterFailure(effect, { kind: 'in_doubt', code: 'timeout' }, circumstance);
    default:
      return afterFailure(effect, { kind: end, code: 'test' }, circumstance);
  }
}

function afterFailure(effect: Effect, failure: Failure, circumstance: Circumstance): Next {
  const { asks, repeatableMs } = FACTS[circumstance];
  const facts = {
    attempt: 1,
    failures: 0,
    lastDelayMs: undefined,
    isDoubtful: false,
    remainingMs: undefined,
    repeatableMs,
  };
  const decision = decideFailure(failure, effect, facts, policyOf(asks), () => 0.5);
  if (decision.status !== 'in_doubt') return decision.status;
  return decision.reconcileInMs === undefined ? 'in doubt, for a person' : 'in doubt, reconciled';
}

/** `times`: how many attempts have vanished, all there were. */
function afterVanishing(effect: Effect, times: number, circumstance: Circumstance): Next {
  const { asks } = FACTS[circumstance];
  const answer = readAnswer(requestOf(effect, asks), rowAfter(effect, times, circumstance));
  switch (answer.kind) {
    case 'in_doubt':
      return 'in doubt, for a person';
    case 'acquired':
      if (answer.claim.mustReconcile) return 'in doubt, reconciled';
      return decideStart(answer.claim, policyOf(asks)) === undefined ? 'retrying' : 'dead';
    default:
      throw new Error(`The claim was answered with ${answer.kind}`);
  }
}

/** What the claim statement returns to the delivery that comes when the lease is over. */
function rowAfter(effect: Effect, times: number, circumstance: Circumstance): ClaimRow {
  const startedAt = new Date('2026-01-01T10:00:00Z');
  // As it was enqueued: its transaction was rolled back, and counts for nothing.
  if (effect === 'transactional')
    return { ...claimRow('pending'), token: '5', attempts: 1, started_at: startedAt };
  const left: ClaimRow = {
    ...claimRow('running'),
    seen_token: '4',
    seen_run_id: 'web-2:88/9',
    seen_attempts: times,
    seen_started_at: startedAt,
    lease_left_ms: -1,
  };
  const won = { token: '5', started_at: startedAt, doubt_since: startedAt, doubt_age_ms: 0 };
  const { asks, isPast, repeatableMs } = FACTS[circumstance];
  if (!isPast)
    return {
      ...left,
      ...won,
      attempts: times + 1,
      must_reconcile: false,
      repeatable_ms: repeatableMs,
      is_past_repeating: false,
    };
  // Asking is no attempt.
  if (asks)
    return {
      ...left,
      ...won,
      attempts: times,
      must_reconcile: true,
      repeatable_ms: repeatableMs,
      is_past_repeating: true,
    };
  return { ...left, is_past_repeating: true };
}

function claimRow(status: OperationStatus): ClaimRow {
  return {
    token: null,
    attempts: 0,
    failures: 0,
    doubt_since: null,
    deadline_at: null,
    remaining_ms: null,
    repeatable_ms: 0,
    started_at: null,
    must_reconcile: null,
    doubt_age_ms: null,
    delay_ms: null,
    status,
    is_same_request: true,
    result: null,
    degraded: null,
    seen_effect: null,
    is_old: false,
    wait_ms: null,
    is_reconciling: false,
    seen_token: null,
    seen_run_id: null,
    seen_attempts: null,
    seen_started_at: null,
    lease_left_ms: null,
    is_past_repeating: null,
    last_trace: null,
  };
}

function requestOf(effect: Effect, asks: boolean): ClaimRequest {
  return {
    tenantId: 'acme',
    operationKey: 'charge:1',
    rules: {
      queue: 'charges',
      origin: 'job',
      effect,
      leaseMs: 30_000,
      repeatableMs: null,
      retentionMs: 60_000,
      budgetMs: null,
      canReconcile: asks,
    },
    jobName: 'charge',
    jobId: 'op-1',
    fingerprint: 'f',
    runId: 'web-1:77/1',
    deadline: null,
    availableAt: 0,
    needsRow: false,
  };
}

function policyOf(asks: boolean): RetryPolicy {
  return {
    attempts: 5,
    crashes: 2,
    backoff: { baseMs: 1_000, capMs: 60_000 },
    schedule: asks ? DEFAULT_SCHEDULE : undefined,
    isCallers: false,
  };
}

/** Whether a processor with that effect starts with, or without, somebody to ask; and is repeatable at all, if within. */
function canBe(effect: Effect, circumstance: Circumstance): boolean {
  const { asks, isPast } = FACTS[circumstance];
  if (!isPast && repeatableForMs(effect, 60_000) === 0) return false;
  const declared = { queue: 'charges', options: { effect }, canReconcile: asks, hasFallback: false };
  try {
    resolveProcessorOptions('Charges', declared, {
      leaseMs: 30_000,
      retentionMs: 60_000,
      results: { maxBytes: 1_000 },
      retryPolicies: new Map(),
      dependencies: { find: () => undefined, names: 'none', knownFailureOf: undefined },
    });
    return true;
  } catch {
    return false;
  }
}
