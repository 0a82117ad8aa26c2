import { describe, expect, it } from 'vitest';
import { classify } from './classify.js';
import type { Failure } from '../../operation/failure.js';

function awsError(name: string, status: number | undefined, more: object = {}): Error {
  const signs = { name, $fault: 'client', $metadata: { httpStatusCode: status } };
  return Object.assign(new Error('failed'), signs, more);
}

describe('classify: errors of AWS SDK v3', () => {
  it.each([
    'BandwidthLimitExceeded',
    'EC2ThrottledException',
    'LimitExceededException',
    'PriorRequestNotComplete',
    'ProvisionedThroughputExceededException',
    'RequestLimitExceeded',
    'RequestThrottled',
    'RequestThrottledException',
    'SlowDown',
    'ThrottledException',
    'Throttling',
    'ThrottlingException',
    'TooManyRequestsException',
    'TransactionInProgressException',
  ])('%s is throttling, whatever its status', (name) => {
    for (const status of [400, 429, 503, undefined]) {
      expect(classify(awsError(name, status))).toEqual({
        kind: 'transient',
        code: `aws_${name}`,
        isThrottled: true,
      });
    }
  });

  it.each<[string, Error, Failure]>([
    [
      'throttling by its trait',
      awsError('BusyException', 400, { $retryable: { throttling: true } }),
      { kind: 'transient', code: 'aws_BusyException', isThrottled: true },
    ],
    ['a refusal', awsError('ValidationException', 400), { kind: 'permanent', code: 'http_400' }],
    [
      'a refusal that is worth another try',
      awsError('ConflictException', 409, { $retryable: {} }),
      { kind: 'transient', code: 'aws_ConflictException' },
    ],
    ['a failure', awsError('InternalFailure', 500), { kind: 'in_doubt', code: 'http_500' }],
    [
      'a failure that is worth another try',
      awsError('InternalFailure', 500, { $retryable: {} }),
      { kind: 'in_doubt', code: 'http_500' },
    ],
    ['a timeout with 400', awsError('RequestTimeout', 400), { kind: 'in_doubt', code: 'aws_RequestTimeout' }],
    [
      'a connection that was never made',
      Object.assign(new Error('failed'), { code: 'ECONNREFUSED', $metadata: { attempts: 1 } }),
      { kind: 'transient', code: 'ECONNREFUSED' },
    ],
    [
      'a connection that was never made, at its third try',
      Object.assign(new Error('failed'), { code: 'ECONNREFUSED', $metadata: { attempts: 3 } }),
      { kind: 'in_doubt', code: 'client_retried' },
    ],
    ['a timeout of its own', awsError('TimeoutError', undefined), { kind: 'in_doubt', code: 'TimeoutError' }],
    [
      'a name that is none',
      awsError('a name; with {things}', 400, { $retryable: {} }),
      { kind: 'transient', code: 'aws_Error' },
    ],
  ])('%s', (_what, error, failure) => {
    expect(classify(error)).toEqual(failure);
  });

  it.each<[string, object, number | undefined]>([
    ['a member', { retryAfterSeconds: 3 }, 3_000],
    ['a member that is a text', { retryAfterSeconds: '3' }, 3_000],
    ['an empty member', { retryAfterSeconds: '' }, undefined],
    ['a member that is no number', { retryAfterSeconds: 'soon' }, undefined],
    ['a header', { $response: { headers: { 'retry-after': '4' } } }, 4_000],
    ['a header in milliseconds', { $response: { headers: { 'x-amz-retry-after': '1500' } } }, 1_500],
  ])('reads the wait from %s', (_where, more, retryAfterMs) => {
    expect(classify(awsError('ThrottlingException', 400, more)).retryAfterMs).toBe(retryAfterMs);
  });

  it('makes nothing of a name that somebody else gave to an error', () => {
    const error = Object.assign(new Error('credit'), { name: 'LimitExceededException', status: 402 });
    expect(classify(error)).toEqual({ kind: 'permanent', code: 'http_402' });
  });
});
