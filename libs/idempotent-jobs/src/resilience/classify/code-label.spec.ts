import { UnrecoverableError } from 'bullmq';
import fc from 'fast-check';
import { EntityNotFoundError, MustBeEntityError } from 'typeorm';
import { describe, expect, it } from 'vitest';
import { IdempotentJobsError, OperationConflictError } from '../../operation/errors.js';
import { classify } from './classify.js';
import { InDoubtError, PermanentError, RetryLaterError, TransientError } from '../../operation/failure.js';
import { CODE_LABELS, type CodeLabel, codeLabelOf } from './code-label.js';

const failing = (properties: object): Error => Object.assign(new Error('failed'), properties);

describe('codeLabelOf', () => {
  it.each<[string, CodeLabel]>([
    ['timeout', 'timeout'],
    ['lease_lost', 'lease_lost'],
    ['lease_expired', 'lease_expired'],
    ['cancelled', 'cancelled'],
    ['shutdown', 'shutdown'],
    ['unclassified', 'other'],
    ['too_many_errors', 'other'],
    ['card_network', 'other'],
    ['', 'other'],
    ['constructor', 'other'],
  ])('has a word for the reason “%s”: %s', (reason, label) => {
    expect(codeLabelOf({ kind: 'in_doubt', code: reason })).toBe(label);
  });

  it.each<[unknown, CodeLabel]>([
    [new TransientError('x'), 'said'],
    [new PermanentError('x'), 'said'],
    [new InDoubtError('x'), 'said'],
    [new RetryLaterError(5), 'said'],
    [new UnrecoverableError('x'), 'said'],
    [new OperationConflictError('acme', 'charge:1'), 'operation'],
    [new IdempotentJobsError('OPERATION_BUSY', 'x'), 'operation'],
    [new IdempotentJobsError('LEDGER_UNAVAILABLE', 'x'), 'database'],
    [failing({ code: 'ECONNREFUSED' }), 'refused'],
    [failing({ code: 'ENOTFOUND' }), 'dns'],
    [failing({ code: 'CERT_HAS_EXPIRED' }), 'tls'],
    [failing({ code: 'ERR_SSL_BAD_RECORD_TYPE' }), 'tls'],
    [failing({ code: 'UND_ERR_HEADERS_TIMEOUT' }), 'timeout'],
    [failing({ name: 'TimeoutError' }), 'timeout'],
    [failing({ name: 'AbortError' }), 'cancelled'],
    [failing({ code: 'ERR_CANCELED' }), 'cancelled'],
    [failing({ code: 'ECONNRESET' }), 'connection_lost'],
    [new TypeError('fetch failed'), 'connection_lost'],
    [failing({ code: 'HPE_INVALID_CONSTANT' }), 'bad_answer'],
    [failing({ status: 429 }), 'throttled'],
    [failing({ status: 503, headers: { 'retry-after': '1' } }), 'throttled'],
    [failing({ name: 'SlowDown', $metadata: {} }), 'throttled'],
    [failing({ status: 404 }), 'http_4xx'],
    [failing({ name: 'ConflictException', $retryable: {}, status: 409 }), 'http_4xx'],
    [failing({ status: 503 }), 'http_5xx'],
    [failing({ responseCode: 550, command: 'RCPT TO' }), 'smtp'],
    [failing({ code: 'EAUTH' }), 'smtp'],
    [failing({ code: '40001', severity: 'ERROR' }), 'database'],
    [new Error('Connection terminated unexpectedly'), 'database'],
    [new EntityNotFoundError('Order', {}), 'database'],
    [new MustBeEntityError('save', 1), 'programming'],
    [new TypeError('x'), 'programming'],
    [failing({ code: 'UND_ERR_INVALID_ARG' }), 'programming'],
    [new Error('x'), 'other'],
  ])('has a word for what classify says of %s: %s', (error, label) => {
    expect(codeLabelOf(classify(error))).toBe(label);
  });

  it('calls what an override says by the override', () => {
    expect(codeLabelOf(classify(new Error('x'), () => 'transient'))).toBe('said');
  });

  it('answers one of a few labels, whatever the reason', () => {
    expect(new Set(CODE_LABELS).size).toBe(CODE_LABELS.length);
    fc.assert(
      fc.property(fc.string(), fc.boolean(), (reason, isThrottled) => {
        expect(CODE_LABELS).toContain(codeLabelOf({ kind: 'transient', code: reason, isThrottled }));
      }),
    );
  });
});
