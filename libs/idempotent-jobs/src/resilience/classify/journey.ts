import type { Failure } from '../../operation/failure.js';
import { read } from '../../operation/thrown.js';

/**
 * Corrects a failure when the client had sent the request before: it retried by itself, or followed a redirect. The
 * earlier request may have had its effect, so even a refusal of the last one leaves a doubt.
 *
 * @internal
 */
export function afterJourney(error: unknown, failure: Failure | undefined): Failure | undefined {
  if (failure === undefined || failure.kind === 'in_doubt' || failure.kind === 'unknown') return failure;
  if (wasRetried(error)) return { ...failure, kind: 'in_doubt', code: 'client_retried' };
  if (wasRedirected(error)) return { ...failure, kind: 'in_doubt', code: 'redirected' };
  return failure;
}

/** AWS SDK v3 counts its tries, got and axios-retry their retries. */
function wasRetried(error: unknown): boolean {
  return (
    isMoreThan(1, read(read(error, '$metadata'), 'attempts')) ||
    isMoreThan(0, read(read(error, 'request'), 'retryCount')) ||
    isMoreThan(0, read(read(read(error, 'config'), 'axios-retry'), 'retryCount'))
  );
}

/** `fetch` has a flag on its response, got lists the addresses, follow-redirects (axios) counts them. */
function wasRedirected(error: unknown): boolean {
  const request = read(error, 'request');
  const response = read(error, 'response');
  return (
    read(response, 'redirected') === true ||
    isMoreThan(0, read(read(response, 'redirectUrls'), 'length')) ||
    isMoreThan(0, read(read(request, 'redirectUrls'), 'length')) ||
    isMoreThan(0, read(request, '_redirectCount')) ||
    isMoreThan(0, read(read(response, 'request'), '_redirectCount'))
  );
}

function isMoreThan(limit: number, value: unknown): boolean {
  return typeof value === 'number' && value > limit;
}
