import { HttpException } from '@nestjs/common';
import { UnrecoverableError } from 'bullmq';
import fc from 'fast-check';
import pg from 'pg';
import { QueryFailedError } from 'typeorm';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import {
  IdempotentJobsError,
  OperationBusyError,
  OperationConflictError,
  OperationDeadError,
  OperationInDoubtError,
} from '../../operation/errors.js';
import { classify, type Classify, inOrder } from './classify.js';
import { signOf } from './failure-sign.js';
import { CODE_LABELS, codeLabelOf } from './code-label.js';
import {
  type Failure,
  InDoubtError,
  PermanentError,
  RetryLaterError,
  TransientError,
} from '../../operation/failure.js';
import type { FailureKind } from '../../operation/reasons.js';

const DAYS_30 = 2_592_000_000;
const MUTE = new Error('mute');

const KINDS: readonly FailureKind[] = ['transient', 'in_doubt', 'permanent', 'programming', 'unknown'];

function failing(properties: object, cause?: unknown): Error {
  return Object.assign(new Error('failed', cause === undefined ? {} : { cause }), properties);
}

function databaseError(code: string): pg.DatabaseError {
  const error = new pg.DatabaseError('the database refused', 20, 'error');
  error.code = code;
  error.severity = 'ERROR';
  return error;
}

/** A chain of errors that say nothing, with `innermost` as the one at place `depth`, counted from 1. */
function nested(depth: number, innermost: unknown): unknown {
  let error = innermost;
  for (let place = depth - 1; place >= 1; place -= 1) error = new Error(`layer ${place}`, { cause: error });
  return error;
}

describe('classify: what handlers throw on purpose', () => {
  it.each<[unknown, Failure]>([
    [new TransientError('x'), { kind: 'transient', code: 'TransientError' }],
    [new PermanentError('x'), { kind: 'permanent', code: 'PermanentError' }],
    [new InDoubtError('x'), { kind: 'in_doubt', code: 'InDoubtError' }],
    [new RetryLaterError(1500), { kind: 'transient', code: 'RetryLaterError', retryAfterMs: 1500 }],
    [new RetryLaterError(-3), { kind: 'transient', code: 'RetryLaterError', retryAfterMs: 0 }],
    [new RetryLaterError(NaN), { kind: 'transient', code: 'RetryLaterError' }],
    [new RetryLaterError(Infinity), { kind: 'transient', code: 'RetryLaterError', retryAfterMs: DAYS_30 }],
    [new RetryLaterError(1e18), { kind: 'transient', code: 'RetryLaterError', retryAfterMs: DAYS_30 }],
    [new RetryLaterError(-Infinity), { kind: 'transient', code: 'RetryLaterError', retryAfterMs: 0 }],
  ])('takes %s at its word', (error, failure) => {
    expect(classify(error)).toEqual(failure);
  });

  it('takes BullMQ’s UnrecoverableError for a permanent failure', () => {
    expect(classify(new UnrecoverableError('enough'))).toEqual({
      kind: 'permanent',
      code: 'UnrecoverableError',
    });
  });

  it('takes the outer word when an inner error says otherwise', () => {
    expect(classify(new PermanentError('no', { cause: failing({ code: 'ECONNRESET' }) })).kind).toBe(
      'permanent',
    );
  });
});

describe('classify: errors of Node and undici', () => {
  it.each<[string, FailureKind]>([
    ['ECONNREFUSED', 'transient'],
    ['ENOTFOUND', 'transient'],
    ['EAI_AGAIN', 'transient'],
    ['EHOSTUNREACH', 'transient'],
    ['ENETUNREACH', 'transient'],
    ['EDNS', 'transient'],
    ['UND_ERR_CONNECT_TIMEOUT', 'transient'],
    ['ETIMEDOUT', 'in_doubt'],
    ['ECONNRESET', 'in_doubt'],
    ['ECONNABORTED', 'in_doubt'],
    ['EPIPE', 'in_doubt'],
    ['ESOCKET', 'in_doubt'],
    ['ECONNECTION', 'in_doubt'],
    ['UND_ERR_SOCKET', 'in_doubt'],
    ['UND_ERR_HEADERS_TIMEOUT', 'in_doubt'],
    ['UND_ERR_BODY_TIMEOUT', 'in_doubt'],
    ['UND_ERR_ABORTED', 'in_doubt'],
    ['ABORT_ERR', 'in_doubt'],
    ['ENOENT', 'unknown'],
    ['ERR_SOMETHING_NEW', 'unknown'],
  ])('reads code %s as %s', (code, kind) => {
    expect(classify(failing({ code }))).toEqual({ kind, code: kind === 'unknown' ? 'unclassified' : code });
  });

  it.each(['ETIMEDOUT', 'ECONNRESET', 'EPIPE'])(
    'reads %s while connecting as transient, because nothing was sent yet',
    (code) => {
      expect(classify(failing({ code, syscall: 'connect' }))).toEqual({ kind: 'transient', code });
    },
  );

  it.each(['read', 'write'])('reads ETIMEDOUT during a %s as in doubt', (syscall) => {
    expect(classify(failing({ code: 'ETIMEDOUT', syscall })).kind).toBe('in_doubt');
  });

  it.each([
    [new DOMException('slow', 'TimeoutError'), 'TimeoutError'],
    [new DOMException('over', 'AbortError'), 'AbortError'],
    [failing({ name: 'AbortError' }), 'AbortError'],
  ])('reads an aborted request as in doubt (%s)', (error, reason) => {
    expect(classify(error)).toEqual({ kind: 'in_doubt', code: reason });
  });

  it('reads what fetch throws by its cause, although it is a TypeError', () => {
    const error = new TypeError('fetch failed', { cause: failing({ code: 'ECONNREFUSED' }) });
    expect(classify(error)).toEqual({ kind: 'transient', code: 'ECONNREFUSED' });
  });

  it.each([undefined, new Error('nobody knows')])(
    'reads what fetch throws as in doubt when its cause tells nothing: %s',
    (cause) => {
      expect(classify(new TypeError('fetch failed', { cause }))).toEqual({
        kind: 'in_doubt',
        code: 'fetch_failed',
      });
    },
  );
});

describe('classify: HTTP statuses', () => {
  it.each<[number, FailureKind]>([
    [400, 'permanent'],
    [401, 'permanent'],
    [402, 'permanent'],
    [403, 'permanent'],
    [404, 'permanent'],
    [408, 'in_doubt'],
    [409, 'transient'],
    [410, 'permanent'],
    [422, 'permanent'],
    [425, 'transient'],
    [429, 'transient'],
    [499, 'permanent'],
    [500, 'in_doubt'],
    [501, 'in_doubt'],
    [502, 'in_doubt'],
    [503, 'in_doubt'],
    [504, 'in_doubt'],
    [599, 'in_doubt'],
  ])('reads %i without Retry-After as %s', (status, kind) => {
    const isThrottled = status === 429 ? { isThrottled: true } : {};
    expect(classify(failing({ status }))).toEqual({ kind, code: `http_${status}`, ...isThrottled });
  });

  it.each([200, 302, 399, 600, 0])('makes nothing of status %i', (status) => {
    expect(classify(failing({ status })).kind).toBe('unknown');
  });

  it('makes nothing of a status that is not a number', () => {
    expect(classify(failing({ status: '500' })).kind).toBe('unknown');
  });

  it.each([
    ['status', failing({ status: 404 })],
    ['statusCode', failing({ statusCode: 404 })],
    ['response.status, as ky and axios do', failing({ response: { status: 404 } })],
    ['response.statusCode, as got does', failing({ response: { statusCode: 404 } })],
    ['$metadata, as AWS SDK v3 does', failing({ $metadata: { httpStatusCode: 404 } })],
    ['a Nest HttpException', new HttpException('gone', 404)],
  ])('finds the status in %s', (_where, error) => {
    expect(classify(error)).toEqual({ kind: 'permanent', code: 'http_404' });
  });

  it('goes by the status even if the error has a code, as those of axios do', () => {
    const error = failing({ code: 'ERR_BAD_RESPONSE', response: { status: 422 } });
    expect(classify(error)).toEqual({ kind: 'permanent', code: 'http_422' });
  });
});

describe('classify: Retry-After', () => {
  beforeEach(() => {
    vi.useFakeTimers({ now: new Date('2026-01-01T00:00:00Z') });
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  it.each<[string, unknown, number]>([
    ['seconds in Headers', new Headers({ 'Retry-After': '120' }), 120_000],
    ['seconds in a Map', new Map([['retry-after', '1.5']]), 1_500],
    ['seconds in a plain object', { 'retry-after': '7' }, 7_000],
    ['seconds as a number', { 'retry-after': 3 }, 3_000],
    ['a capitalised name', { 'Retry-After': '9' }, 9_000],
    ['zero under a capitalised name', { 'Retry-After': 0 }, 0],
    ['thirty days', { 'retry-after': '2592000' }, 2_592_000_000],
    ['a second more than thirty days', { 'retry-after': '2592001' }, 2_592_000_000],
    ['an age', { 'retry-after': '99999999999999' }, 2_592_000_000],
    ['a date of another century', { 'retry-after': 'Fri, 01 Jan 2100 00:00:00 GMT' }, 2_592_000_000],
    ['zero', { 'retry-after': '0' }, 0],
    ['negative seconds', { 'retry-after': '-5' }, 0],
    ['a date', { 'retry-after': 'Thu, 01 Jan 2026 00:02:00 GMT' }, 120_000],
    ['a date in Headers', new Headers({ 'retry-after': 'Thu, 01 Jan 2026 01:00:00 GMT' }), 3_600_000],
    ['a date in the past', { 'retry-after': 'Wed, 31 Dec 2025 23:59:00 GMT' }, 0],
    ['milliseconds in the way of Azure and OpenAI', new Headers({ 'retry-after-ms': '1234' }), 1_234],
    ['milliseconds in the way of Azure Cosmos DB', { 'x-ms-retry-after-ms': '250' }, 250],
    ['milliseconds in the way of AWS', { 'x-amz-retry-after': 700 }, 700],
    ['milliseconds before seconds', { 'retry-after': '2', 'retry-after-ms': '1500' }, 1_500],
    [
      'seconds beside milliseconds that are no number',
      { 'retry-after': '2', 'retry-after-ms': 'soon' },
      2_000,
    ],
    ['negative milliseconds', { 'retry-after-ms': '-1' }, 0],
    ['an age of milliseconds', { 'retry-after-ms': '99999999999999' }, 2_592_000_000],
  ])('makes 429 and 503 transient with the wait it names: %s', (_form, headers, retryAfterMs) => {
    for (const status of [429, 503]) {
      const expected = { kind: 'transient', code: `http_${status}`, retryAfterMs, isThrottled: true };
      expect(classify(failing({ status, headers }))).toEqual(expected);
      expect(classify(failing({ response: { status, headers } }))).toEqual(expected);
    }
  });

  it.each([
    ['no header', { 'content-type': 'text/plain' }],
    ['a word', { 'retry-after': 'soon' }],
    ['an empty text', { 'retry-after': '' }],
    ['an empty text in Headers', new Headers({ 'retry-after': '' })],
    ['an empty text under a capitalised name', { 'Retry-After': '' }],
    ['no number', { 'retry-after': NaN }],
    ['an endless wait', { 'retry-after': 'Infinity' }],
    ['the time of a window that may have room before its end', { 'ratelimit-reset': '30' }],
    ['an object', { 'retry-after': {} }],
    [
      'headers that throw',
      new Proxy(
        {},
        {
          get: () => {
            throw new Error('no');
          },
        },
      ),
    ],
  ])('leaves 503 in doubt and 429 without a wait when there is %s', (_form, headers) => {
    expect(classify(failing({ status: 503, headers }))).toEqual({ kind: 'in_doubt', code: 'http_503' });
    expect(classify(failing({ status: 429, headers }))).toEqual({
      kind: 'transient',
      code: 'http_429',
      isThrottled: true,
    });
  });

  it.each([500, 502, 504])(
    'does not make %i safe: it says nothing about whether the effect happened',
    (status) => {
      expect(classify(failing({ status, headers: { 'retry-after': '1' } }))).toEqual({
        kind: 'in_doubt',
        code: `http_${status}`,
        retryAfterMs: 1_000,
      });
    },
  );

  it.each([409, 425])('is a minimum for %i, too, which says that nothing happened', (status) => {
    expect(classify(failing({ status, headers: { 'retry-after': '2' } }))).toEqual({
      kind: 'transient',
      code: `http_${status}`,
      retryAfterMs: 2_000,
    });
  });
});

describe('classify: SMTP replies', () => {
  it.each<[number, string, FailureKind]>([
    [421, 'DATA', 'transient'],
    [421, 'RCPT TO', 'transient'],
    [450, 'DATA', 'transient'],
    [450, 'RCPT TO', 'transient'],
    [451, 'DATA', 'in_doubt'],
    [451, 'RCPT TO', 'transient'],
    [451, 'MAIL FROM', 'transient'],
    [452, 'DATA', 'transient'],
    [454, 'AUTH PLAIN', 'transient'],
    [499, 'DATA', 'in_doubt'],
    [500, 'DATA', 'permanent'],
    [550, 'RCPT TO', 'permanent'],
    [554, 'DATA', 'permanent'],
  ])('reads %i to %s as %s', (responseCode, command, kind) => {
    expect(classify(failing({ code: 'EMESSAGE', responseCode, command }))).toEqual({
      kind,
      code: `smtp_${responseCode}`,
    });
  });
});

describe('classify: connections to a mail server', () => {
  // Nodemailer says command "CONN" whenever a connection breaks, also after the message was sent.
  it.each<[string, object, FailureKind]>([
    ['closed', { code: 'ECONNECTION' }, 'in_doubt'],
    ['reset', { code: 'ESOCKET', originalCode: 'ECONNRESET', syscall: 'read' }, 'in_doubt'],
    ['silent', { code: 'ETIMEDOUT', timeoutType: 'SOCKET_TIMEOUT' }, 'in_doubt'],
    ['refused', { code: 'ESOCKET', originalCode: 'ECONNREFUSED', syscall: 'connect' }, 'transient'],
    ['never established', { code: 'ETIMEDOUT', timeoutType: 'CONNECTION_TIMEOUT' }, 'transient'],
    ['established, but not greeted', { code: 'ETIMEDOUT', timeoutType: 'GREETING_TIMEOUT' }, 'transient'],
    ['to a name that is not known', { code: 'EDNS' }, 'transient'],
  ])('%s: %o is %s', (_what, properties, kind) => {
    expect(classify(failing({ command: 'CONN', ...properties })).kind).toBe(kind);
  });
});

describe('classify: Postgres', () => {
  const table: [string, FailureKind][] = [
    ['40001', 'transient'],
    ['40P01', 'transient'],
    ['55P03', 'transient'],
    ['57P01', 'transient'],
    ['57P02', 'transient'],
    ['57P03', 'transient'],
    ['53100', 'transient'],
    ['53300', 'transient'],
    ['08000', 'in_doubt'],
    ['08001', 'transient'],
    ['08P01', 'in_doubt'],
    ['08001', 'transient'],
    ['08006', 'in_doubt'],
    ['08007', 'in_doubt'],
    ['22001', 'permanent'],
    ['22P02', 'permanent'],
    ['23502', 'permanent'],
    ['23505', 'permanent'],
    ['42P01', 'permanent'],
    ['42501', 'permanent'],
    ['57014', 'unknown'],
    ['25P02', 'unknown'],
    ['P0001', 'unknown'],
    ['XX000', 'unknown'],
  ];

  it.each(table)('reads SQLSTATE %s of the driver as %s', (code, kind) => {
    expect(classify(databaseError(code))).toEqual({ kind, code: `sql_${code}` });
  });

  it.each(table)('reads SQLSTATE %s in a QueryFailedError as %s', (code, kind) => {
    const error = new QueryFailedError('SELECT 1', [], databaseError(code));
    expect(classify(error)).toEqual({ kind, code: `sql_${code}` });
  });

  it('finds the SQLSTATE where only driverError has it', () => {
    expect(classify(failing({ driverError: databaseError('40001') }))).toEqual({
      kind: 'transient',
      code: 'sql_40001',
    });
  });

  it('makes nothing of five capitals that no database wrote', () => {
    expect(classify(failing({ code: 'EPERM' })).kind).toBe('unknown');
  });
});

describe('classify: errors that say nothing', () => {
  it.each([
    [new TypeError('x'), 'TypeError'],
    [new ReferenceError('x'), 'ReferenceError'],
    [new RangeError('x'), 'RangeError'],
  ])('reads %s as a bug', (error, reason) => {
    expect(classify(error)).toEqual({ kind: 'programming', code: reason });
  });

  it.each([
    ['an Error', new Error('x')],
    ['an answer that could not be parsed', new SyntaxError('Unexpected end of JSON input')],
    ['a string', 'ECONNREFUSED'],
    ['a number', 500],
    ['undefined', undefined],
    ['null', null],
    ['a symbol', Symbol('x')],
    ['a bigint', 5n],
    ['an empty object', {}],
    ['an error whose cause is a bug', new Error('x', { cause: new TypeError('y') })],
  ])('reads %s as unknown', (_what, error) => {
    expect(classify(error)).toEqual({ kind: 'unknown', code: 'unclassified' });
  });
});

describe('classify: chains', () => {
  it.each([1, 2, 9, 10])('finds an error at place %i of a chain of causes', (depth) => {
    expect(classify(nested(depth, failing({ code: 'ECONNREFUSED' }))).kind).toBe('transient');
  });

  it('gives up after ten errors', () => {
    expect(classify(nested(11, failing({ code: 'ECONNREFUSED' })))).toEqual({
      kind: 'unknown',
      code: 'unclassified',
    });
  });

  it('looks into the errors of an AggregateError', () => {
    const error = new AggregateError(
      [failing({ code: 'ECONNREFUSED' }), failing({ status: 429 })],
      'all failed',
    );
    expect(classify(error)).toEqual({ kind: 'transient', code: 'ECONNREFUSED' });
  });

  it('looks into an AggregateError that is a cause', () => {
    const error = new TypeError('fetch failed', {
      cause: new AggregateError([failing({ code: 'ENOTFOUND' })]),
    });
    expect(classify(error).kind).toBe('transient');
  });

  it.each([
    ['first', [failing({ code: 'ECONNRESET' }), failing({ code: 'ECONNREFUSED' })]],
    ['last', [failing({ code: 'ECONNREFUSED' }), failing({ status: 400 }), failing({ code: 'ECONNRESET' })]],
    ['beneath another', [failing({ code: 'ENOTFOUND' }), nested(3, failing({ code: 'ECONNRESET' }))]],
    [
      'in an AggregateError of its own',
      [failing({ code: 'ENOTFOUND' }), new AggregateError([failing({ code: 'ECONNRESET' })])],
    ],
  ])('takes the sibling in doubt among the errors of an AggregateError: %s', (_where, errors) => {
    expect(classify(new AggregateError(errors))).toEqual({ kind: 'in_doubt', code: 'ECONNRESET' });
  });

  it('takes the first sibling when all tell something and none is in doubt', () => {
    const errors = [failing({ status: 422 }), failing({ code: 'ECONNREFUSED' })];
    expect(classify(new AggregateError(errors))).toEqual({ kind: 'permanent', code: 'http_422' });
  });

  it.each([
    [[new Error('mute'), failing({ code: 'ECONNREFUSED' })], 'partly_unknown'],
    [[failing({ status: 422 }), new TypeError('a bug')], 'partly_unknown'],
    [[failing({ code: 'ECONNREFUSED' }), causes(failing({ code: 'ECONNRESET' }), 9)], 'too_many_errors'],
  ])('leaves a doubt where a sibling says nothing, or was not looked at: %#', (errors, reason) => {
    expect(classify(new AggregateError(errors))).toEqual({ kind: 'in_doubt', code: reason });
  });

  it('does not know an aggregate of which nobody says anything', () => {
    expect(classify(new AggregateError([new Error('a'), new Error('b')])).kind).toBe('unknown');
  });

  it.each(['ETIMEDOUT', 'ECONNREFUSED', 'ECONNRESET'])(
    'reads what Node throws when no address can be connected to (%s) as transient',
    (code) => {
      const attempts = ['192.0.2.1', '2001:db8::1'].map((address) =>
        failing({ code, syscall: 'connect', address, port: 443 }),
      );
      const error = Object.assign(new AggregateError(attempts), { code });
      expect(classify(error)).toEqual({ kind: 'transient', code });
      expect(classify(new TypeError('fetch failed', { cause: error })).kind).toBe('transient');
    },
  );

  it('goes by the code of an AggregateError whose errors tell nothing', () => {
    const error = Object.assign(new AggregateError([new Error('mute')]), { code: 'ETIMEDOUT' });
    expect(classify(error)).toEqual({ kind: 'in_doubt', code: 'ETIMEDOUT' });
  });

  it.each([
    ['one error 100,000 times', () => Array.from({ length: 100_000 }, () => MUTE)],
    ['100,000 errors', () => Array.from({ length: 100_000 }, (_, index) => new Error(`mute ${index}`))],
    ['a hole of 100,000', () => Object.assign([], { length: 100_000 }) as Error[]],
  ])('survives an AggregateError of %s', (_what, errors) => {
    expect(classify(new AggregateError(errors())).kind).toBe('unknown');
  });

  it('survives a chain of 100,000 causes', () => {
    expect(classify(nested(100_000, failing({ code: 'ECONNREFUSED' }))).kind).toBe('unknown');
  });

  it('takes the nearest error that tells something', () => {
    const error = failing({ status: 400 }, failing({ code: 'ECONNRESET' }));
    expect(classify(error)).toEqual({ kind: 'permanent', code: 'http_400' });
  });

  it('survives an error that is its own cause', () => {
    const error: Error & { cause?: unknown } = new Error('ouroboros');
    error.cause = error;
    expect(classify(error).kind).toBe('unknown');
  });

  it('finds what is behind a circle of causes', () => {
    const first: Error & { errors?: unknown[] } = new Error('first');
    const second = new Error('second', { cause: first });
    first.cause = second;
    first.errors = [...Array.from({ length: 20 }, () => first), second, failing({ code: 'EPIPE' })];
    expect(classify(second)).toEqual({ kind: 'in_doubt', code: 'EPIPE' });
  });

  it('survives getters that throw, and reads the rest', () => {
    const error = new Error('trap', { cause: failing({ code: 'ECONNREFUSED' }) });
    for (const property of [
      'status',
      'response',
      'headers',
      'code',
      'errors',
      'driverError',
      'responseCode',
    ]) {
      Object.defineProperty(error, property, {
        get() {
          throw new Error('do not touch');
        },
      });
    }
    expect(classify(error).kind).toBe('transient');
  });
});

describe('classify: what cannot be looked at', () => {
  function revoked(target: object = {}): object {
    const { proxy, revoke } = Proxy.revocable(target, {});
    revoke();
    return proxy;
  }

  it.each([
    ['thrown', () => revoked()],
    ['as a cause', () => new Error('outer', { cause: revoked() })],
    ['as the errors', () => failing({ errors: revoked([]) })],
    ['among the errors', () => new AggregateError([revoked()])],
    ['as the response', () => failing({ response: revoked() })],
  ])('reads a revoked proxy as unknown: %s', (_where, make) => {
    expect(classify(make())).toEqual({ kind: 'unknown', code: 'unclassified' });
  });

  it('reads the headers’ status when the headers are a revoked proxy', () => {
    expect(classify(failing({ status: 404, headers: revoked() }))).toEqual({
      kind: 'permanent',
      code: 'http_404',
    });
  });

  it('reads the cause of what does not tell its class', () => {
    const error = new Proxy(failing({}, failing({ code: 'ECONNREFUSED' })), {
      getPrototypeOf() {
        throw new Error('do not touch');
      },
    });
    expect(classify(error)).toEqual({ kind: 'transient', code: 'ECONNREFUSED' });
  });

  it.each([
    ['a bug', new TypeError('x'), 'programming'],
    ['an error', new Error('x'), 'unknown'],
  ])('survives a name that throws: %s', (_what, error, kind) => {
    Object.defineProperty(error, 'name', {
      get() {
        throw new Error('do not touch');
      },
    });
    const failure = classify(error);
    expect(failure.kind).toBe(kind);
    expect(failure.code).toBeTypeOf('string');
  });
});

describe('classify: overrides', () => {
  it('asks the override before the built-in rules', () => {
    expect(classify(failing({ status: 500 }), () => 'transient')).toEqual({
      kind: 'transient',
      code: 'classify',
    });
  });

  it('takes a whole failure from the override', () => {
    const failure: Failure = { kind: 'in_doubt', code: 'card_network', retryAfterMs: 5 };
    expect(classify(new Error('x'), () => failure)).toEqual(failure);
  });

  it.each([
    ['a promise', Promise.resolve('transient')],
    ['null', null],
    ['a kind that there is not', 'temporary'],
    ['a failure of a kind that there is not', { kind: 'temporary', code: 'x' }],
    ['a number', 5],
  ])('leaves errors to the built-in rules when the override answers nonsense: %s', (_what, answer) => {
    expect(classify(failing({ status: 404 }), () => answer as never)).toEqual({
      kind: 'permanent',
      code: 'http_404',
    });
  });

  it('makes good what is missing from the override’s answer', () => {
    const failure = classify(new Error('x'), () => ({ kind: 'transient', retryAfterMs: 'soon' }) as never);
    expect(failure).toEqual({ kind: 'transient', code: 'classify' });
  });

  it('warns, once, of an answer that has the failure code under its old name', async () => {
    const warnings: Error[] = [];
    const note = (warning: Error): void => void warnings.push(warning);
    const outdated = (): never => ({ kind: 'permanent', reason: 'card_declined' }) as never;
    process.on('warning', note);
    for (let times = 0; times < 2; times += 1)
      expect(classify(new Error('x'), outdated)).toEqual({ kind: 'permanent', code: 'classify' });
    await new Promise(setImmediate);
    process.off('warning', note);
    expect(warnings.map(({ message }) => message)).toEqual([
      'A `classify` function returned a failure with a `reason`, which is lost: the field is called `code`. Return { kind, code }.',
    ]);
  });

  it('lets the override say that the service asked for less', () => {
    const failure: Failure = { kind: 'transient', code: 'quota', isThrottled: true };
    expect(classify(new Error('x'), () => failure)).toEqual(failure);
  });

  it('leaves errors to the built-in rules when the override answers undefined', () => {
    expect(classify(failing({ status: 500 }), () => undefined).kind).toBe('in_doubt');
  });

  it('leaves errors to the built-in rules when the override throws', () => {
    const failure = classify(failing({ status: 404 }), () => {
      throw new Error('a bug in classify');
    });
    expect(failure).toEqual({ kind: 'permanent', code: 'http_404' });
  });

  it('shows the override the causes too', () => {
    const seen: unknown[] = [];
    const inner = new Error('inner');
    const outer = new Error('outer', { cause: inner });
    classify(outer, (error) => {
      seen.push(error);
      return undefined;
    });
    expect(seen).toEqual([outer, inner]);
  });

  it('gives the nearer error to the built-in rules before a further one to the override', () => {
    const error = failing({ status: 400 }, new Error('inner'));
    const failure = classify(error, (one) => ((one as Error).message === 'inner' ? 'transient' : undefined));
    expect(failure.kind).toBe('permanent');
  });
});

describe('classify: anything', () => {
  const anything = fc.anything({
    withNullPrototype: true,
    withBigInt: true,
    withDate: true,
    withMap: true,
    withSet: true,
    withTypedArray: true,
    withBoxedValues: true,
    withSparseArray: true,
    withObjectString: true,
  });
  const property = fc.constantFrom(
    'cause',
    'errors',
    'driverError',
    'response',
    'headers',
    'code',
    'status',
    'name',
    'message',
    'syscall',
    'event',
    'originalCode',
    'command',
    'responseCode',
    'severity',
    '$metadata',
    '$retryable',
    '$response',
    'retryAfterSeconds',
    'isAxiosError',
    'request',
    'retryAfterMs',
  );
  const telling = fc.oneof(
    anything,
    fc.constantFrom(
      400,
      429,
      503,
      true,
      'ECONNRESET',
      'ERR_NETWORK',
      'ERR_HTTP2_STREAM_ERROR',
      'EAUTH',
      'DATA',
    ),
  );
  /** Throws at every touch, or at every touch of some properties. */
  const trap = fc.array(property).map(
    (traps) =>
      new Proxy(new Error('trap'), {
        get: (target, name) => {
          if (traps.length === 0 || traps.some((one) => one === name)) throw new Error('do not touch');
          return Reflect.get(target, name) as unknown;
        },
        getPrototypeOf: () => {
          throw new Error('do not touch');
        },
      }),
  );
  /** Errors that hold each other: each property of each is one of them, or anything else. */
  const tangle = fc
    .array(fc.array(fc.tuple(property, fc.oneof(fc.nat({ max: 5 }), telling, trap))), {
      minLength: 1,
      maxLength: 6,
    })
    .map((descriptions) => {
      const errors = descriptions.map((_, index) => new Error(`error ${index}`));
      for (const [index, properties] of descriptions.entries()) {
        for (const [name, value] of properties) {
          const isOneOfThem = typeof value === 'number' && value <= 5;
          const held: unknown = isOneOfThem ? errors.at(value % errors.length) : value;
          const isMany = name === 'errors' && isOneOfThem;
          Object.defineProperty(errors[index], name, {
            configurable: true,
            value: isMany ? Array.from({ length: 50 }, () => held) : held,
          });
        }
      }
      return errors[0];
    });

  function expectFailure(failure: Failure): void {
    expect(KINDS).toContain(failure.kind);
    expect(failure.code).toBeTypeOf('string');
    expect(CODE_LABELS).toContain(codeLabelOf(failure));
    if (failure.retryAfterMs !== undefined) expect(failure.retryAfterMs).toBeGreaterThanOrEqual(0);
  }

  it.each([
    ['anything', anything],
    ['a trap', trap],
    ['errors that hold each other, and traps', tangle],
    [
      'an error that carries anything',
      fc.array(fc.tuple(property, telling)).map((all) => failing(Object.fromEntries(all))),
    ],
  ])('never throws and always answers one of the kinds with a reason and a label: %s', (_what, thrown) => {
    fc.assert(fc.property(thrown, (error) => expectFailure(classify(error))));
  });

  it('never throws and always answers one of the kinds, whatever an override answers', () => {
    fc.assert(
      fc.property(fc.oneof(anything, trap), (answer) =>
        expectFailure(classify(new Error('x'), () => answer as never)),
      ),
    );
  });
});

describe('classify: what the library itself has refused', () => {
  const REFUSED = { tenantId: 'acme', operationKey: 'charge:1' };

  it.each<[IdempotentJobsError, FailureKind]>([
    [new OperationConflictError('acme', 'charge:1'), 'permanent'],
    [new OperationDeadError(REFUSED), 'permanent'],
    [new OperationBusyError(REFUSED, 5), 'transient'],
    [new IdempotentJobsError('LEDGER_UNAVAILABLE', 'out of reach'), 'transient'],
    [new OperationInDoubtError(REFUSED), 'in_doubt'],
  ])('%s is %s, also as a cause', (error, kind) => {
    expect(classify(error)).toMatchObject({ kind, code: error.code.toLowerCase() });
    expect(classify(new Error('wrapped', { cause: error }))).toMatchObject({ kind });
  });

  it.each([
    'OPERATION_CONFLICT',
    'OPERATION_DEAD',
    'OPERATION_BUSY',
    'LEDGER_UNAVAILABLE',
    'DEPENDENCY_REJECTED',
  ])('the code %s of any other error says nothing', (code) => {
    expect(classify(failing({ code, retryAfterMs: 5 }))).toEqual({ kind: 'unknown', code: 'unclassified' });
  });

  it('hands on when to come again, if that makes sense', () => {
    const waitOf = (ms: unknown): number | undefined =>
      classify(new OperationBusyError(REFUSED, ms as number)).retryAfterMs;
    expect(waitOf(1500)).toBe(1500);
    expect(waitOf('soon')).toBeUndefined();
    expect(waitOf(1e15)).toBe(DAYS_30);
  });
});

describe('classify: what an application says', () => {
  it('carries nothing that others act on, whatever its words and fields', () => {
    const answer = { kind: 'transient', code: 'http_409', sign: 'key_in_progress', isOwn: true } as const;
    const failure = classify(new Error('x'), () => answer);
    expect(failure).toEqual({ kind: 'transient', code: 'http_409' });
    expect(signOf(failure)).toBeUndefined();
  });

  it('does not carry it either where it has changed what a built-in rule said', () => {
    const known = classify(failing({ status: 409 }));
    expect(signOf(known)).toBe('key_in_progress');
    expect(signOf(classify(new Error('x'), () => known))).toBe('key_in_progress');
    expect(signOf(classify(new Error('x'), () => ({ ...known })))).toBeUndefined();
  });

  it('is cut to a few words', () => {
    const failure = classify(new Error('x'), () => ({ kind: 'transient', code: `\0${'r'.repeat(1_000)}` }));
    expect(failure.code).toBe(`\u{FFFD}${'r'.repeat(199)}`);
  });
});

/** An error with so many causes above it. */
function causes(error: unknown, depth: number): unknown {
  return depth === 0 ? error : new Error('wrapped', { cause: causes(error, depth - 1) });
}

describe('classify: a client that had sent the request before', () => {
  const retried = [
    ['AWS SDK v3', { $metadata: { attempts: 2 } }],
    ['got', { request: { retryCount: 1 } }],
    ['axios-retry', { config: { 'axios-retry': { retryCount: 1 } } }],
  ] as const;
  const redirected = [
    ['fetch', { response: { redirected: true } }],
    ['got', { request: { redirectUrls: ['http://elsewhere'] } }],
    ['got, by its response', { response: { redirectUrls: ['http://elsewhere'] } }],
    ['axios', { request: { _redirectCount: 1 } }],
  ] as const;
  const lastTries = [{ code: 'ECONNREFUSED' }, { status: 429 }, { status: 404 }];

  it.each(
    [
      ...retried.map((one) => [...one, 'client_retried'] as const),
      ...redirected.map((one) => [...one, 'redirected'] as const),
    ].flatMap(([client, sign, reason]) => lastTries.map((lastTry) => ({ client, sign, lastTry, reason }))),
  )('leaves a doubt, whatever its last try says: $client, $lastTry', ({ sign, lastTry, reason }) => {
    expect(classify(failing({ ...sign, ...lastTry }))).toMatchObject({ kind: 'in_doubt', code: reason });
  });

  it('leaves a doubt where the last try is told by a cause', () => {
    const error = failing({
      code: 'ECONNREFUSED',
      request: { retryCount: 1 },
      cause: failing({ code: 'ECONNREFUSED', syscall: 'connect' }),
    });
    expect(classify(error)).toMatchObject({ kind: 'in_doubt', code: 'client_retried' });
  });

  it.each([
    { $metadata: { attempts: 1 } },
    { request: { retryCount: 0, redirectUrls: [], _redirectCount: 0 } },
    { response: { redirected: false, redirectUrls: [] } },
    { config: { 'axios-retry': { retryCount: 0 } } },
  ])('takes the word of one that had not: %o', (sign) => {
    expect(classify(failing({ ...sign, code: 'ECONNREFUSED' })).kind).toBe('transient');
  });

  it('takes the word of a handler that says itself what happened', () => {
    const error = new TransientError('looked it up');
    Object.assign(error, { request: { retryCount: 3 } });
    expect(classify(error).kind).toBe('transient');
  });
});

describe('classify: waits that are none', () => {
  it.each([undefined, 'soon', NaN, 10n, null, {}])(
    'reads RetryLaterError(%s) as transient, without a wait',
    (delay) => {
      const failure = classify(new RetryLaterError(delay as number));
      expect(failure).toMatchObject({ kind: 'transient' });
      expect(failure.retryAfterMs).toBeUndefined();
    },
  );
});

const says: Classify = () => 'permanent';
const knowsNothing: Classify = () => undefined;
const isBroken: Classify = () => {
  throw new Error('a rule with a bug');
};

describe('inOrder', () => {
  it('is no rule where there are none', () => {
    expect(inOrder()).toBeUndefined();
    expect(inOrder(undefined, undefined)).toBeUndefined();
  });

  it('is the only rule that there is', () => {
    expect(inOrder(undefined, says, undefined)).toBe(says);
  });

  it('lets the first rule that tells anything have its say', () => {
    const rule = inOrder(knowsNothing, undefined, says, () => 'in_doubt');
    expect(rule?.(new Error())).toBe('permanent');
  });

  it('passes over a rule that throws', () => {
    expect(inOrder(isBroken, says)?.(new Error())).toBe('permanent');
    expect(inOrder(isBroken, isBroken)?.(new Error())).toBeUndefined();
  });

  it('tells nothing where no rule does', () => {
    expect(inOrder(knowsNothing, knowsNothing)?.(new Error())).toBeUndefined();
  });

  it('hands each rule the error itself', () => {
    const seen: unknown[] = [];
    const looks: Classify = (error) => {
      seen.push(error);
      return undefined;
    };
    const error = { not: 'an Error' };
    inOrder(looks, looks)?.(error);
    expect(seen).toEqual([error, error]);
    expect(seen.every((one) => one === error)).toBe(true);
  });
});
