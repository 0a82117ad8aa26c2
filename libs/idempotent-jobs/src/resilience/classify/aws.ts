import type { Failure } from '../../operation/failure.js';
import { signed } from './failure-sign.js';
import { httpRetryAfterOf, httpStatusOf } from './http.js';
import { read } from '../../operation/thrown.js';
import { waitOf } from './wait.js';

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
  const reason = `aws_${typeof name === 'string' && /^\w{1,64}$/.test(name) ? name : 'Error'}`;
  if (THROTTLING.has(name) || read(retryable, 'throttling') === true)
    return { kind: 'transient', code: reason, retryAfterMs: retryAfterMs(error), isThrottled: true };
  const status = httpStatusOf(error);
  if (TIMEOUTS.has(name)) return signed('timeout', { kind: 'in_doubt', code: reason });
  // 429 has its own rule, and 408 says too little, whatever the name.
  const isRefused = status !== undefined && status < 500 && status !== 429 && status !== 408;
  return isRefused && typeof retryable === 'object' && retryable !== null
    ? { kind: 'transient', code: reason }
    : undefined;
}

/** From the headers, or from the field by which many services repeat Retry-After. */
function retryAfterMs(error: unknown): number | undefined {
  const seconds = read(error, 'retryAfterSeconds');
  const isNamed = (typeof seconds === 'number' || typeof seconds === 'string') && seconds !== '';
  return httpRetryAfterOf(error) ?? (isNamed ? waitOf(Number(seconds) * 1000) : undefined);
}
