import { describe, expect, it } from 'vitest';
import type { AttemptResult } from '../attempt/attempt-result.js';
import { type Ack, ackOf } from './acknowledge.js';

const error = new Error('the handler failed');
const failure = { kind: 'transient', code: 'ECONNREFUSED' } as const;

const TABLE: [string, AttemptResult, Ack][] = [
  [
    'completed',
    { kind: 'completed', result: { id: 7 }, degraded: undefined },
    { kind: 'done', result: { id: 7 } },
  ],
  [
    'completed without a result',
    { kind: 'completed', result: undefined, degraded: undefined },
    { kind: 'done', result: undefined },
  ],
  [
    'replayed',
    { kind: 'replayed', result: 'before', degraded: undefined },
    { kind: 'done', result: 'before' },
  ],
  [
    'failed, to be retried',
    {
      kind: 'failed',
      error,
      failure,
      nextStep: { status: 'retrying', decision: 'backoff', delayMs: 1_234, isDoubtful: false },
    },
    { kind: 'retry', error, delayMs: 1_234 },
  ],
  [
    'failed, in doubt, with nobody to ask but a person',
    {
      kind: 'failed',
      error,
      failure,
      nextStep: {
        status: 'in_doubt',
        decision: 'may_have_happened',
        reason: 'in_doubt',
        isDoubtful: true,
        reconcileInMs: undefined,
      },
    },
    { kind: 'fail', error },
  ],
  [
    'failed, in doubt, to be asked about',
    {
      kind: 'failed',
      error,
      failure,
      nextStep: {
        status: 'in_doubt',
        decision: 'may_have_happened',
        reason: 'in_doubt',
        isDoubtful: true,
        reconcileInMs: 5_000,
      },
    },
    { kind: 'defer', delayMs: 5_000 },
  ],
  [
    'failed, dead',
    {
      kind: 'failed',
      error,
      failure,
      nextStep: { status: 'dead', decision: 'not_retryable', reason: 'permanent_error', isDoubtful: false },
    },
    { kind: 'fail', error },
  ],
  ['conflict', { kind: 'refused', reason: 'conflict', error }, { kind: 'fail', error }],
  ['dead', { kind: 'refused', reason: 'dead', error }, { kind: 'fail', error }],
  ['in doubt', { kind: 'refused', reason: 'in_doubt', error }, { kind: 'fail', error }],
  ['handed back', { kind: 'handed_back', error }, { kind: 'hand_back' }],
];

describe('ackOf', () => {
  it.each(TABLE)('acknowledges an attempt that ended %s', (_title, result, ack) => {
    expect(ackOf(result, () => 0.5)).toEqual(ack);
  });

  it.each([
    [0, 1_000],
    [0.5, 1_050],
    [0.9, 1_090],
  ])('puts off a deferred delivery by up to a tenth more: random %d gives %d ms', (drawn, delayMs) => {
    const ack = ackOf({ kind: 'deferred', delayMs: 1_000, deferral: 'busy', detail: 'busy' }, () => drawn);
    expect(ack).toEqual({ kind: 'defer', delayMs: expect.closeTo(delayMs, 6) });
  });

  it('puts off a long wait by a second more at most', () => {
    const delayMs = 30 * 24 * 60 * 60 * 1000;
    const ack = ackOf({ kind: 'deferred', delayMs, deferral: 'not_yet', detail: 'not_yet' }, () => 1);
    expect(ack).toEqual({ kind: 'defer', delayMs: delayMs + 1000 });
  });
});
