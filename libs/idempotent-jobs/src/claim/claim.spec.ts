import { describe, expect, it } from 'vitest';
import { OPERATION_STATUSES, type OperationStatus } from '../operation/status.js';
import { type ClaimRequest, type ClaimRow, readAnswer } from './claim.js';

const request: ClaimRequest = {
  tenantId: 'acme',
  operationKey: 'charge:1',
  terms: {
    queue: 'charges',
    effect: 'keyed',
    leaseMs: 30_000,
    repeatableMs: 1_000,
    retentionMs: 60_000,
    budgetMs: null,
  },
  jobName: 'charge',
  jobId: 'op-1',
  fingerprint: 'f',
  workerId: 'web-1:77/1',
  deadline: null,
  availableAt: 0,
};

/** A row of the claim statement: not won, and nothing seen but what `changes` says. */
function row(changes: Partial<ClaimRow>): ClaimRow {
  return {
    token: null,
    attempts: 0,
    failures: 0,
    doubt_since: null,
    deadline_at: null,
    remaining_ms: null,
    repeatable_ms: 0,
    status: null,
    is_same_request: null,
    result: null,
    is_old: false,
    wait_ms: null,
    seen_token: null,
    seen_worker_id: null,
    seen_attempts: null,
    seen_started_at: null,
    lease_left_ms: null,
    is_past_repeating: null,
    ...changes,
  };
}

/** A row of another delivery's operation, as the statement's snapshot saw it. */
function seen(status: OperationStatus, changes: Partial<ClaimRow> = {}): ClaimRow {
  return row({
    status,
    is_same_request: true,
    seen_token: '4',
    seen_worker_id: 'web-2:88/9',
    seen_attempts: 3,
    seen_started_at: new Date('2026-01-01T10:00:00Z'),
    ...changes,
  });
}

type Answer = 'replay' | 'dead' | 'in_doubt' | 'busy' | 'look_again';

/**
 * What a claim that was not won means. The columns: lease alive or over; and, within each, whether the effect may no
 * longer be repeated. A claimable row that was not claimed was written by a rival: look again.
 */
const TABLE: Record<
  OperationStatus,
  { alive: [Answer, Answer]; over: [Answer, Answer]; none: [Answer, Answer] }
> = {
  pending: {
    alive: ['look_again', 'look_again'],
    over: ['look_again', 'look_again'],
    none: ['look_again', 'look_again'],
  },
  running: { alive: ['busy', 'busy'], over: ['look_again', 'in_doubt'], none: ['look_again', 'in_doubt'] },
  retrying: {
    alive: ['look_again', 'in_doubt'],
    over: ['look_again', 'in_doubt'],
    none: ['look_again', 'in_doubt'],
  },
  in_doubt: {
    alive: ['in_doubt', 'in_doubt'],
    over: ['in_doubt', 'in_doubt'],
    none: ['in_doubt', 'in_doubt'],
  },
  completed: { alive: ['replay', 'replay'], over: ['replay', 'replay'], none: ['replay', 'replay'] },
  dead: { alive: ['dead', 'dead'], over: ['dead', 'dead'], none: ['dead', 'dead'] },
};

const LEASES = { alive: 1, over: -1, none: null };

const CASES = OPERATION_STATUSES.flatMap((status) =>
  (['alive', 'over', 'none'] as const).flatMap((lease) =>
    [false, true].map((isPast) => ({ status, lease, isPast, answer: TABLE[status][lease][isPast ? 1 : 0] })),
  ),
);

describe('readAnswer: a claim that was not won', () => {
  it.each(CASES)(
    '$status, lease $lease, past repeating $isPast: $answer',
    ({ status, lease, isPast, answer }) => {
      const found = seen(status, { lease_left_ms: LEASES[lease], is_past_repeating: isPast });
      expect(readAnswer(request, found).kind).toBe(answer);
    },
  );

  it('looks again when the snapshot has no row at all', () => {
    expect(readAnswer(request, row({}))).toEqual({ kind: 'look_again' });
  });

  it.each(OPERATION_STATUSES)(
    'calls another request under the same key a conflict, also when it is %s',
    (status) => {
      const found = seen(status, { is_same_request: false, lease_left_ms: 5, is_past_repeating: true });
      expect(readAnswer(request, found)).toEqual({ kind: 'conflict' });
    },
  );

  it('looks again when it is not known whether the effect may still be repeated', () => {
    expect(readAnswer(request, seen('running', { is_past_repeating: null })).kind).toBe('look_again');
    expect(readAnswer(request, seen('retrying', { is_past_repeating: null })).kind).toBe('look_again');
  });

  it.each([
    ['an object', '{"id":7}'],
    ['null', 'null'],
    ['nothing', null],
  ])('replays the recorded result, as it is kept: %s', (_what, result) => {
    expect(readAnswer(request, seen('completed', { result }))).toEqual({
      kind: 'replay',
      resultText: result,
    });
  });

  it('says for how long the lease of a running attempt lasts', () => {
    expect(readAnswer(request, seen('running', { lease_left_ms: 1_234.5 }))).toEqual({
      kind: 'busy',
      leaseLeftMs: 1_234.5,
    });
  });

  it('is not kept busy by a lease that ends this very moment', () => {
    expect(readAnswer(request, seen('running', { lease_left_ms: 0 })).kind).toBe('look_again');
  });

  it.each(['running', 'retrying'] as const)(
    'has the claimant write down the doubt, under the token and for the attempt it saw, while the row still says %s',
    (status) => {
      expect(readAnswer(request, seen(status, { lease_left_ms: -1, is_past_repeating: true }))).toEqual({
        kind: 'in_doubt',
        unrecorded: { token: 4, attempt: 3 },
      });
    },
  );

  it('counts no attempt in a doubt to write down when the row knows of none', () => {
    const found = seen('retrying', { is_past_repeating: true, seen_attempts: null });
    expect(readAnswer(request, found)).toEqual({ kind: 'in_doubt', unrecorded: { token: 4, attempt: 0 } });
  });

  it.each([true, false, null])(
    'leaves nothing to write down when the row says in_doubt itself, past repeating %s',
    (is_past_repeating) => {
      expect(readAnswer(request, seen('in_doubt', { is_past_repeating }))).toEqual({
        kind: 'in_doubt',
        unrecorded: undefined,
      });
    },
  );
});

describe('readAnswer: a claim that was won', () => {
  const won = row({
    token: '9007199254740991',
    attempts: 3,
    failures: 1,
    remaining_ms: 250,
    repeatable_ms: Infinity,
    deadline_at: new Date('2026-02-02T00:00:00Z'),
  });

  it('reads the claim, its token as a number', () => {
    expect(readAnswer(request, won)).toEqual({
      kind: 'acquired',
      claim: {
        tenantId: 'acme',
        operationKey: 'charge:1',
        token: 9_007_199_254_740_991,
        attempt: 3,
        failures: 1,
        isDoubtful: false,
        deadline: new Date('2026-02-02T00:00:00Z'),
        remainingMs: 250,
        repeatableMs: Infinity,
        tookOver: undefined,
      },
    });
  });

  it('is won whatever the snapshot showed', () => {
    for (const status of OPERATION_STATUSES) {
      const answer = readAnswer(request, { ...seen(status), token: '1', is_same_request: false });
      expect(answer.kind).toBe('acquired');
    }
  });

  it.each([
    ['no budget', null, undefined],
    ['a budget that is over', -5, -5],
    ['nothing left of it', 0, 0],
  ])('reads what is left of the time budget: %s', (_what, remaining_ms, remainingMs) => {
    expect(readAnswer(request, { ...won, remaining_ms })).toMatchObject({ claim: { remainingMs } });
  });

  it('has no deadline when the row has none', () => {
    expect(readAnswer(request, { ...won, deadline_at: null })).toMatchObject({
      claim: { deadline: undefined },
    });
  });

  it('is doubtful when an earlier attempt was', () => {
    const answer = readAnswer(request, { ...won, doubt_since: new Date(0) });
    expect(answer).toMatchObject({ claim: { isDoubtful: true } });
  });

  it('tells whom it took the operation over from', () => {
    const answer = readAnswer(request, { ...seen('running'), token: '5' });
    expect(answer).toMatchObject({
      claim: {
        token: 5,
        tookOver: {
          token: 4,
          attempt: 3,
          workerId: 'web-2:88/9',
          startedAt: new Date('2026-01-01T10:00:00Z'),
        },
      },
    });
  });

  it('has taken over from nobody when the same run asked before and lost the answer', () => {
    const answer = readAnswer(request, { ...seen('running', { seen_worker_id: 'web-1:77/1' }), token: '4' });
    expect(answer).toMatchObject({ claim: { token: 4, tookOver: undefined } });
  });

  it.each(['pending', 'retrying'] as const)(
    'has taken over from nobody when the operation was %s',
    (status) => {
      expect(readAnswer(request, { ...seen(status), token: '5' })).toMatchObject({
        claim: { tookOver: undefined },
      });
    },
  );

  it('says so little of a vanished attempt as the row knows', () => {
    const bare = { seen_worker_id: null, seen_attempts: null, seen_started_at: null };
    expect(readAnswer(request, { ...seen('running', bare), token: '5' })).toMatchObject({
      claim: { tookOver: { token: 4, attempt: 0, workerId: undefined, startedAt: undefined } },
    });
  });

  it.each(['pending', 'retrying'] as const)('%s: its time has not come, so it is not yet', (status) => {
    expect(readAnswer(request, seen(status, { wait_ms: 1200 }))).toEqual({ kind: 'not_yet', waitMs: 1200 });
    expect(readAnswer(request, seen(status, { wait_ms: -1 }))).toEqual({ kind: 'look_again' });
  });

  it('retrying past its repeating is in doubt, also before its time has come', () => {
    expect(readAnswer(request, seen('retrying', { wait_ms: 1200, is_past_repeating: true }))).toMatchObject({
      kind: 'in_doubt',
    });
  });

  it('of a job that is not younger than what was forgotten, nothing is known yet', () => {
    expect(readAnswer(request, row({ is_old: true }))).toEqual({ kind: 'old' });
    expect(readAnswer(request, seen('completed', { is_old: true }))).toEqual({ kind: 'old' });
  });
});
