import type { Failure } from '../../operation/failure.js';
import type { FailureKind } from '../../operation/reasons.js';
import { signed } from './failure-sign.js';
import { read } from '../../operation/thrown.js';
import { retryAfterOf } from './retry-after.js';

/**
 * The status of an error response. Nest's HttpException, axios, undici and most SDKs have it themselves; ky, got and
 * axios have it in their `response`, AWS SDK v3 in `$metadata`.
 *
 * @internal
 */
export function httpStatusOf(error: unknown): number | undefined {
  const response = read(error, 'response');
  return [
    read(error, 'status'),
    read(error, 'statusCode'),
    read(response, 'status'),
    read(response, 'statusCode'),
    read(read(error, '$metadata'), 'httpStatusCode'),
  ].find((value): value is number => typeof value === 'number' && value >= 400 && value < 600);
}

/** The wait that an error response asks for. @internal */
export function httpRetryAfterOf(error: unknown): number | undefined {
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
