import { describe, expect, it } from 'vitest';
import { rowsOf } from '../../../../../test/support/table.js';
import { OPERATION_STATUSES, type OperationStatus } from '../../operation/status.js';
import { type ClaimRequest, type ClaimRow, readAnswer, readPeek } from './claim.js';
import { LEDGER_TYPES } from '../postgres/connection.js';

const request: ClaimRequest = {
  tenantId: 'acme',
  operationKey: 'charge:1',
  rules: {
    queue: 'charges',
    origin: 'job',
    effect: 'keyed',
    leaseMs: 30_000,
    repeatableMs: 1_000,
    retentionMs: 60_000,
    budgetMs: null,
    canReconcile: false,
  },
  jobName: 'charge',
  jobId: 'op-1',
  fingerprint: 'f',
  runId: 'web-1:77/1',
  deadline: null,
  availableAt: 0,
  needsRow: false,
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
    started_at: new Date('2026-01-01T10:00:00Z'),
    must_reconcile: null,
    doubt_age_ms: null,
    delay_ms: null,
    status: null,
    is_same_request: null,
    result: null,
    degraded: null,
    is_old: false,
    wait_ms: null,
    is_reconciling: null,
    seen_token: null,
    seen_run_id: null,
    seen_effect: null,
    seen_attempts: null,
    seen_started_at: null,
    lease_left_ms: null,
    is_past_repeating: null,
    last_trace: null,
    ...changes,
  };
}

/** A row of another delivery's operation, as the statement's snapshot saw it. */
function seen(status: OperationStatus, changes: Partial<ClaimRow> = {}): ClaimRow {
  return row({
    status,
    is_same_request: true,
    seen_token: '4',
    seen_run_id: 'web-2:88/9',
    seen_attempts: 3,
    seen_started_at: new Date('2026-01-01T10:00:00Z'),
    ...changes,
  });
}

/** Somebody who can ask whether the effect of an earlier attempt happened. */
const asking: ClaimRequest = { ...request, rules: { ...request.rules, canReconcile: true } };

/** What an answer in the table means before the time of the row has come, for one seen 1,200 ms early; and after that. */
const ANSWER: Readonly<Record<string, { early: object; due: object }>> = {
  replay: always({ kind: 'replay', resultText: '"done before"', degraded: undefined }),
  dead: always({ kind: 'dead' }),
  busy: always({ kind: 'busy', leaseLeftMs: 1 }),
  'look again': always({ kind: 'ask_again' }),
  'not yet, then look again': { early: { kind: 'not_yet', waitMs: 1_200 }, due: { kind: 'ask_again' } },
  'in doubt': always({ kind: 'in_doubt', unrecorded: undefined }),
  'in doubt, to be written down': always({ kind: 'in_doubt', unrecorded: { token: 4, attempt: 3 } }),
};

function always(answer: object): { early: object; due: object } {
  return { early: answer, due: answer };
}

/** How a row may be seen: may its effect still be repeated, and has it a time for a question? */
const COLUMNS = [
  { seen: 'repeatable', isPast: false, isReconciling: false },
  { seen: 'past repeating', isPast: true, isReconciling: false },
  { seen: 'repeatable, time for a question', isPast: false, isReconciling: true },
  { seen: 'past repeating, time for a question', isPast: true, isReconciling: true },
] as const;

/**
 * What a claim that was not won means. A claimable row that was not claimed was written by a rival: look again. What may
 * not be repeated is in doubt for those who can ask nobody. A doubt under a lease is being asked about.
 */
const TABLE = rowsOf<'status' | 'lease' | 'claimant' | (typeof COLUMNS)[number]['seen']>(`
| status    | lease        | claimant       | repeatable               | past repeating               | repeatable, time for a question | past repeating, time for a question |
| --------- | ------------ | -------------- | ------------------------ | ---------------------------- | ------------------------------- | ----------------------------------- |
| pending   | any          | either         | not yet, then look again | not yet, then look again     | not yet, then look again        | not yet, then look again            |
| running   | alive        | either         | busy                     | busy                         | busy                            | busy                                |
| running   | over or none | can ask        | look again               | look again                   | look again                      | look again                          |
| running   | over or none | can ask nobody | look again               | in doubt, to be written down | look again                      | in doubt, to be written down        |
| retrying  | any          | can ask        | not yet, then look again | not yet, then look again     | not yet, then look again        | not yet, then look again            |
| retrying  | any          | can ask nobody | not yet, then look again | in doubt, to be written down | not yet, then look again        | in doubt, to be written down        |
| in_doubt  | alive        | either         | busy                     | busy                         | busy                            | busy                                |
| in_doubt  | over or none | can ask        | in doubt                 | in doubt                     | not yet, then look again        | not yet, then look again            |
| in_doubt  | over or none | can ask nobody | in doubt                 | in doubt                     | in doubt, to be written down    | in doubt, to be written down        |
| completed | any          | either         | replay                   | replay                       | replay                          | replay                              |
| dead      | any          | either         | dead                     | dead                         | dead                            | dead                                |
`);

const LEASES = [
  { lease: 'alive', leaseLeftMs: 1, rows: ['any', 'alive'] },
  { lease: 'over', leaseLeftMs: -1, rows: ['any', 'over or none'] },
  { lease: 'none', leaseLeftMs: null, rows: ['any', 'over or none'] },
] as const;

const CASES = TABLE.flatMap((row) =>
  LEASES.filter(({ rows }) => rows.some((lease) => lease === row.lease)).flatMap(({ lease, leaseLeftMs }) =>
    (['can ask', 'can ask nobody'] as const)
      .filter((claimant) => ['either', claimant].includes(row.claimant))
      .flatMap((claimant) =>
        COLUMNS.map(({ seen: column, isPast, isReconciling }) => ({
          status: row.status as OperationStatus,
          lease,
          leaseLeftMs,
          claimant,
          seen: column,
          isPast,
          isReconciling,
          answer: row[column],
        })),
      ),
  ),
);

describe('readAnswer: a claim that was not won', () => {
  it('is told by this table for every status', () => {
    expect(new Set(CASES.map(({ status }) => status))).toEqual(new Set(OPERATION_STATUSES));
    expect(CASES).toHaveLength(6 * 3 * 2 * 2 * 2);
  });

  it.each(CASES)(
    '$status, lease $lease, $seen, claimant $claimant: $answer',
    ({ status, leaseLeftMs, claimant, isPast, isReconciling, answer }) => {
      const claims = claimant === 'can ask' ? asking : request;
      const found = seen(status, {
        lease_left_ms: leaseLeftMs,
        is_past_repeating: isPast,
        is_reconciling: isReconciling,
        result: '"done before"',
      });
      expect(readAnswer(claims, { ...found, wait_ms: 1_200 })).toStrictEqual(ANSWER[answer]?.early);
      for (const wait_ms of [0, -1, null])
        expect(readAnswer(claims, { ...found, wait_ms })).toStrictEqual(ANSWER[answer]?.due);
    },
  );

  it('looks again when the snapshot has no row at all', () => {
    expect(readAnswer(request, row({}))).toEqual({ kind: 'ask_again' });
  });

  it.each(OPERATION_STATUSES)(
    'calls another request under the same key a conflict, also when it is %s',
    (status) => {
      const found = seen(status, { is_same_request: false, lease_left_ms: 5, is_past_repeating: true });
      expect(readAnswer(request, found)).toEqual({ kind: 'conflict' });
    },
  );

  it('looks again when it is not known whether the effect may still be repeated', () => {
    expect(readAnswer(request, seen('running', { is_past_repeating: null })).kind).toBe('ask_again');
    expect(readAnswer(request, seen('retrying', { is_past_repeating: null })).kind).toBe('ask_again');
  });

  it.each([
    ['an object', '{"id":7}'],
    ['null', 'null'],
    ['nothing', null],
  ])('replays the recorded result, as it is kept: %s', (_what, result) => {
    expect(readAnswer(request, seen('completed', { result }))).toEqual({
      kind: 'replay',
      resultText: result,
      degraded: undefined,
    });
  });

  it('says for how long the lease of a running attempt lasts', () => {
    expect(readAnswer(request, seen('running', { lease_left_ms: 1_234.5 }))).toEqual({
      kind: 'busy',
      leaseLeftMs: 1_234.5,
    });
  });

  it('says for how long the lease of whoever is asking about a doubt lasts', () => {
    const found = seen('in_doubt', { lease_left_ms: 1_234.5, is_reconciling: true, wait_ms: -1 });
    expect(readAnswer(asking, found)).toEqual({ kind: 'busy', leaseLeftMs: 1_234.5 });
  });

  it('is not kept busy by a lease that ends this very moment', () => {
    expect(readAnswer(request, seen('running', { lease_left_ms: 0 })).kind).toBe('ask_again');
    const askedAbout = seen('in_doubt', { lease_left_ms: 0, is_reconciling: true });
    expect(readAnswer(asking, askedAbout).kind).toBe('ask_again');
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

  it('leaves a doubt to a person when it is not known whether there is a time for a question', () => {
    const found = seen('in_doubt', { is_reconciling: null, wait_ms: 1_200 });
    expect(readAnswer(asking, found)).toEqual({ kind: 'in_doubt', unrecorded: undefined });
  });
});

describe('readAnswer: a claim that was won', () => {
  const won = row({
    token: '9007199254740991',
    attempts: 3,
    failures: 1,
    remaining_ms: 250,
    repeatable_ms: Infinity,
    deadline_at: new Date('2026-02-02T00:00:00Z'),
    started_at: new Date('2026-01-31T08:30:00Z'),
    must_reconcile: false,
  });

  it('reads the claim, its token as a number', () => {
    expect(readAnswer(request, won)).toEqual({
      kind: 'acquired',
      claim: {
        tenantId: 'acme',
        operationKey: 'charge:1',
        token: 9_007_199_254_740_991,
        attempt: 3,
        mustReconcile: false,
        startedAt: new Date('2026-01-31T08:30:00Z'),
        doubtAgeMs: undefined,
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

  it.each([
    { must_reconcile: true, mustReconcile: true },
    { must_reconcile: false, mustReconcile: false },
    { must_reconcile: null, mustReconcile: false },
  ])(
    'must ask first only when the statement says so: $must_reconcile',
    ({ must_reconcile, mustReconcile }) => {
      expect(readAnswer(asking, { ...won, must_reconcile })).toMatchObject({ claim: { mustReconcile } });
    },
  );

  it.each([
    { title: 'no doubt', doubt_since: null, doubt_age_ms: null, doubtAgeMs: undefined },
    {
      title: 'no doubt any more, and an age that an earlier one has left',
      doubt_since: null,
      doubt_age_ms: 60_000,
      doubtAgeMs: undefined,
    },
    {
      title: 'a doubt of an attempt whose end nobody has seen',
      doubt_since: new Date(0),
      doubt_age_ms: null,
      delay_ms: null,
      doubtAgeMs: undefined,
    },
    {
      title: 'a doubt that began this very moment',
      doubt_since: new Date(0),
      doubt_age_ms: 0,
      doubtAgeMs: 0,
    },
    {
      title: 'a doubt of a minute',
      doubt_since: new Date(0),
      doubt_age_ms: 60_000.25,
      doubtAgeMs: 60_000.25,
    },
  ])('tells the age of the doubt: $title', ({ doubt_since, doubt_age_ms, doubtAgeMs }) => {
    const answer = readAnswer(asking, { ...won, doubt_since, doubt_age_ms });
    expect(answer).toHaveProperty('claim.doubtAgeMs', doubtAgeMs);
  });

  it('reads when the attempt was started, also where the application takes times as text', () => {
    const startedAt = new Date('2026-01-31T08:30:00Z');
    const parsed = LEDGER_TYPES.getTypeParser(1184)('2026-01-31 09:30:00+01') as Date;
    expect(readAnswer(request, won)).toMatchObject({ claim: { startedAt } });
    expect(readAnswer(request, { ...won, started_at: parsed })).toMatchObject({ claim: { startedAt } });
  });

  it('asks about the attempt that it took over from a vanished worker, and which stays the last one', () => {
    const answer = readAnswer(asking, {
      ...seen('running'),
      token: '5',
      attempts: 3,
      must_reconcile: true,
      doubt_since: new Date(0),
      doubt_age_ms: 0,
    });
    expect(answer).toMatchObject({
      claim: {
        token: 5,
        attempt: 3,
        mustReconcile: true,
        isDoubtful: true,
        tookOver: { token: 4, attempt: 3 },
      },
    });
  });

  it('tells whom it took the operation over from', () => {
    const answer = readAnswer(request, { ...seen('running'), token: '5' });
    expect(answer).toMatchObject({
      claim: {
        token: 5,
        tookOver: {
          token: 4,
          attempt: 3,
          runId: 'web-2:88/9',
          startedAt: new Date('2026-01-01T10:00:00Z'),
        },
      },
    });
  });

  it('has taken over from nobody when the same run asked before and lost the answer', () => {
    const answer = readAnswer(request, { ...seen('running', { seen_run_id: 'web-1:77/1' }), token: '4' });
    expect(answer).toMatchObject({ claim: { token: 4, tookOver: undefined } });
  });

  it.each(['pending', 'retrying', 'in_doubt'] as const)(
    'has taken over from nobody when the operation was %s',
    (status) => {
      expect(readAnswer(request, { ...seen(status), token: '5' })).toMatchObject({
        claim: { tookOver: undefined },
      });
    },
  );

  it('says so little of a vanished attempt as the row knows', () => {
    const bare = { seen_run_id: null, seen_attempts: null, seen_started_at: null };
    expect(readAnswer(request, { ...seen('running', bare), token: '5' })).toMatchObject({
      claim: { tookOver: { token: 4, attempt: 0, runId: undefined, startedAt: undefined } },
    });
  });

  it.each(['pending', 'retrying'] as const)('%s: its time has not come, so it is not yet', (status) => {
    expect(readAnswer(request, seen(status, { wait_ms: 1200 }))).toEqual({ kind: 'not_yet', waitMs: 1200 });
    expect(readAnswer(request, seen(status, { wait_ms: -1 }))).toEqual({ kind: 'ask_again' });
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

/**
 * What a look says in place of what a claim that was not won says: where that is to look again, somebody may run it. The
 * rest is no different.
 */
describe('readPeek', () => {
  const looked = (found: ClaimRow): ClaimRow => ({ ...found, remaining_ms: null, seen_attempts: 3 });

  it.each(CASES)(
    '$status, lease $lease, $seen, claimant $claimant: $answer, or runnable',
    ({ status, leaseLeftMs, claimant, isPast, isReconciling, answer }) => {
      const claims = claimant === 'can ask' ? asking : request;
      const found = seen(status, {
        lease_left_ms: leaseLeftMs,
        is_past_repeating: isPast,
        is_reconciling: isReconciling,
        result: '"done before"',
        doubt_since: status === 'in_doubt' ? new Date(0) : null,
      });
      const runnable = {
        kind: 'runnable',
        remainingMs: undefined,
        attempts: 3,
        isDoubtful: status === 'running' || status === 'in_doubt',
      };
      const early = answer === 'look again' ? runnable : ANSWER[answer]?.early;
      const due = answer.endsWith('look again') ? runnable : ANSWER[answer]?.due;
      expect(readPeek(claims, looked({ ...found, wait_ms: 1_200 }))).toStrictEqual(early);
      for (const wait_ms of [0, -1, null])
        expect(readPeek(claims, looked({ ...found, wait_ms }))).toStrictEqual(due);
    },
  );

  it('takes an operation that has no row yet for one that may be run', () => {
    expect(readPeek(request, { ...row({}), remaining_ms: 250 })).toStrictEqual({
      kind: 'runnable',
      remainingMs: 250,
      attempts: 0,
      isDoubtful: false,
    });
  });

  it('says what is left of the time budget, also when nothing is', () => {
    for (const remaining_ms of [0, -5])
      expect(readPeek(request, { ...looked(seen('pending')), remaining_ms })).toMatchObject({
        kind: 'runnable',
        remainingMs: remaining_ms,
      });
  });

  it.each(['pending', 'retrying'] as const)('%s: is doubtful when an earlier attempt was', (status) => {
    const found = looked(seen(status, { doubt_since: new Date(0) }));
    expect(readPeek(request, found)).toMatchObject({ kind: 'runnable', isDoubtful: true });
    expect(readPeek(request, { ...found, doubt_since: null })).toMatchObject({ isDoubtful: false });
  });

  it('is never runnable under the key of another request', () => {
    for (const status of OPERATION_STATUSES)
      expect(readPeek(request, looked(seen(status, { is_same_request: false })))).toEqual({
        kind: 'conflict',
      });
  });

  it('replays what a stand-in answered as such', () => {
    const found = looked(seen('completed', { result: 'null', degraded: 'gateway: circuit_open' }));
    expect(readPeek(request, found)).toEqual({
      kind: 'replay',
      resultText: 'null',
      degraded: 'gateway: circuit_open',
    });
  });
});
