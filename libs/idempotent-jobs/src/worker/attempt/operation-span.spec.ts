import { describe, expect, it } from 'vitest';
import type { AttemptResult } from './attempt-result.js';
import { PermanentError } from '../../operation/failure.js';
import { resultAttributes, whatFailed } from './operation-span.js';

class BankError extends Error {
  override readonly name = 'acme/secret-0815';
}
const error = new BankError('token hunter2');
const failure = { kind: 'transient', code: 'ECONNREFUSED' } as const;

const TABLE: { title: string; result: AttemptResult; attributes: object; failed: string | undefined }[] = [
  {
    title: 'completed',
    result: { kind: 'completed', result: 'hunter2', degraded: undefined },
    attributes: { 'idempotent_jobs.outcome': 'completed' },
    failed: undefined,
  },
  {
    title: 'replayed',
    result: { kind: 'replayed', result: 'hunter2', degraded: undefined },
    attributes: { 'idempotent_jobs.outcome': 'replayed' },
    failed: undefined,
  },
  {
    title: 'failed, to be retried',
    result: {
      kind: 'failed',
      error,
      failure,
      nextStep: { status: 'retrying', decision: 'backoff', delayMs: 12.3, isDoubtful: false },
    },
    attributes: {
      'idempotent_jobs.outcome': 'retrying',
      'idempotent_jobs.failure_kind': 'transient',
      'idempotent_jobs.failure_reason': 'ECONNREFUSED',
      'idempotent_jobs.decision': 'backoff',
      'idempotent_jobs.delay_ms': 13,
      'error.type': 'BankError',
    },
    failed: 'ECONNREFUSED',
  },
  {
    title: 'failed, dead',
    result: {
      kind: 'failed',
      error: new PermanentError('hunter2'),
      failure: { kind: 'permanent', code: 'permanent' },
      nextStep: { status: 'dead', decision: 'not_retryable', reason: 'permanent_error', isDoubtful: false },
    },
    attributes: {
      'idempotent_jobs.outcome': 'dead',
      'idempotent_jobs.failure_kind': 'permanent',
      'idempotent_jobs.failure_reason': 'permanent',
      'idempotent_jobs.decision': 'not_retryable',
      'idempotent_jobs.delay_ms': undefined,
      'error.type': 'PermanentError',
    },
    failed: 'permanent',
  },
  {
    title: 'put off, because somebody else runs it',
    result: {
      kind: 'deferred',
      delayMs: 200,
      deferral: 'busy',
      detail: 'busy: another worker is running the operation',
    },
    attributes: {
      'idempotent_jobs.outcome': 'deferred',
      'idempotent_jobs.deferral': 'busy',
      'idempotent_jobs.delay_ms': 200,
    },
    failed: undefined,
  },
  {
    title: 'put off, because the ledger is out of reach',
    result: {
      kind: 'deferred',
      delayMs: 1000,
      deferral: 'ledger_unavailable',
      detail: 'ledger_unavailable: password hunter2 failed',
    },
    attributes: {
      'idempotent_jobs.outcome': 'deferred',
      'idempotent_jobs.deferral': 'ledger_unavailable',
      'idempotent_jobs.delay_ms': 1000,
    },
    failed: 'ledger_unavailable',
  },
  ...(['conflict', 'dead', 'in_doubt', 'expired'] as const).map((reason) => ({
    title: reason,
    result: { kind: 'refused' as const, reason, error },
    attributes: { 'idempotent_jobs.outcome': reason, 'error.type': 'BankError' },
    failed: reason,
  })),
  {
    title: 'handed back',
    result: { kind: 'handed_back', error },
    attributes: { 'idempotent_jobs.outcome': 'handed_back' },
    failed: undefined,
  },
];

describe('resultAttributes', () => {
  it.each(TABLE)('tells what a run that ended $title comes to', ({ result, attributes, failed }) => {
    expect(resultAttributes(result)).toEqual(attributes);
    expect(whatFailed(result)).toBe(failed);
  });

  it.each(TABLE)('tells neither result nor message of a run that ended $title', ({ result }) => {
    expect(JSON.stringify(resultAttributes(result))).not.toMatch(/hunter2|0815/);
  });

  it('keeps an application’s reason short', () => {
    const result: AttemptResult = {
      kind: 'failed',
      error: 'thrown text',
      failure: { kind: 'transient', code: 'r'.repeat(1000) },
      nextStep: { status: 'retrying', decision: 'backoff', delayMs: 1, isDoubtful: false },
    };
    expect(resultAttributes(result)).toMatchObject({
      'idempotent_jobs.failure_reason': 'r'.repeat(200),
      'error.type': 'string',
    });
  });
});
