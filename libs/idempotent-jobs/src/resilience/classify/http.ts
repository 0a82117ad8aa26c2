import { type Failure, waitOf } from '../../operation/failure.js';
import type { FailureKind } from '../../operation/reasons.js';
import { orUndefined, read } from '../../operation/thrown.js';
import { signed } from './failure-sign.js';

/**
 * The status of an error response. Nest's HttpException, axios, undici and most SDKs have it themselves; ky, got and
 * axios have it in their `response`, AWS SDK v3 in `$metadata`.
 */
function httpStatusOf(error: unknown): number | undefined {
  const response = read(error, 'response');
  return [
    read(error, 'status'),
    read(error, 'statusCode'),
    read(response, 'status'),
    read(response, 'statusCode'),
    read(read(error, '$metadata'), 'httpStatusCode'),
  ].find((value): value is number => typeof value === 'number' && value >= 400 && value < 600);
}

/** The wait that an error response asks for. */
function httpRetryAfterOf(error: unknown): number | undefined {
  return retryAfterOf(
    read(error, 'headers') ??
      read(read(error, 'response'), 'headers') ??
      read(read(error, '$response'), 'headers'),
  );
}

/** @internal */
export function byHttpStatus(error: unknown): Failure | undefined {
  const status = httpStatusOf(error);
  if (status === undefined) return undefined;
  const retryAfterMs = httpRetryAfterOf(error);
  const isThrottled = status === 429 || (status === 503 && retryAfterMs !== undefined);
  return signed(status === 409 ? 'key_in_progress' : 'answer', {
    kind: isThrottled ? 'transient' : kindOf(status),
    code: `http_${status}`,
    ...((isThrottled || retryAfterMs !== undefined) && { retryAfterMs }),
    ...(isThrottled && { isThrottled }),
  });
}

function kindOf(status: number): FailureKind {
  // 409 answers a request whose idempotency key is in progress, 425 one that came too early: this attempt did nothing.
  if (status === 409 || status === 425) return 'transient';
  // A local timeout throws 408 too (Nest's RequestTimeoutException), which says nothing about the other side.
  return status >= 500 || status === 408 ? 'in_doubt' : 'permanent';
}

/**
 * Headers that name a wait in milliseconds: Azure and OpenAI answer with `retry-after-ms`, Azure Cosmos DB with
 * `x-ms-retry-after-ms`, AWS with `x-amz-retry-after`. More exact than Retry-After, so asked first.
 */
const IN_MILLISECONDS = ['retry-after-ms', 'x-ms-retry-after-ms', 'x-amz-retry-after'];

/** The wait that an answer asks for, in milliseconds from now. Undefined if it names none. */
function retryAfterOf(headers: unknown): number | undefined {
  for (const name of IN_MILLISECONDS) {
    const ms = numberOf(header(headers, name));
    if (ms !== undefined) return waitOf(ms);
  }
  const raw = header(headers, 'retry-after') ?? read(headers, 'Retry-After');
  const seconds = numberOf(raw);
  if (seconds !== undefined) return waitOf(seconds * 1000);
  // Seconds or a date (RFC 9110, section 10.2.3).
  return typeof raw === 'string' ? waitOf(Date.parse(raw) - Date.now()) : undefined;
}

function header(headers: unknown, name: string): unknown {
  const get = read(headers, 'get');
  return typeof get === 'function'
    ? orUndefined(() => (get as (name: string) => unknown).call(headers, name))
    : read(headers, name);
}

function numberOf(raw: unknown): number | undefined {
  if ((typeof raw !== 'string' && typeof raw !== 'number') || String(raw).trim() === '') return undefined;
  const value = Number(raw);
  return Number.isFinite(value) ? value : undefined;
}

/** The error names that AWS SDK v3 reads as throttling (`@smithy/core/retry`, 3.x). */
const THROTTLING = new Set<unknown>([
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
]);

/** The service gave up waiting and answered 400: it is not known how far the request got. */
const TIMEOUTS = new Set<unknown>(['RequestTimeout', 'RequestTimeoutException']);

/**
 * Errors of AWS SDK v3. They say more than their status: throttling mostly comes with 400, and `SlowDown` with 503.
 * `$retryable` makes a refusal transient; after a 500 it does not say what happened.
 *
 * @internal
 */
export function byAws(error: unknown): Failure | undefined {
  const retryable = read(error, '$retryable');
  const isAws = [retryable, read(error, '$metadata'), read(error, '$fault')].some(
    (sign) => sign !== undefined && sign !== null,
  );
  if (!isAws) return undefined;
  const name = read(error, 'name');
  const code = `aws_${typeof name === 'string' && /^\w{1,64}$/.test(name) ? name : 'Error'}`;
  if (THROTTLING.has(name) || read(retryable, 'throttling') === true)
    return { kind: 'transient', code, retryAfterMs: retryAfterMs(error), isThrottled: true };
  const status = httpStatusOf(error);
  if (TIMEOUTS.has(name)) return signed('timeout', { kind: 'in_doubt', code });
  // 429 has its own rule, and 408 says too little, whatever the name.
  const isRefused = status !== undefined && status < 500 && status !== 429 && status !== 408;
  return isRefused && typeof retryable === 'object' && retryable !== null
    ? { kind: 'transient', code }
    : undefined;
}

/** From the headers, or from the field by which many services repeat Retry-After. */
function retryAfterMs(error: unknown): number | undefined {
  const seconds = read(error, 'retryAfterSeconds');
  const isNamed = (typeof seconds === 'number' || typeof seconds === 'string') && seconds !== '';
  return httpRetryAfterOf(error) ?? (isNamed ? waitOf(Number(seconds) * 1000) : undefined);
}
