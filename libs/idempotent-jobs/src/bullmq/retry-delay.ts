/**
 * BullMQ carries the delay between attempts, but the ledger decides about them. A job gets more attempts than any
 * policy allows, and a backoff type that this module implements.
 */

/** More than any policy's attempts, so that BullMQ never gives up first. */
export const CARRIED_ATTEMPTS = 100_000;

/** The name of the backoff strategy that every idempotent worker brings. */
export const BACKOFF_TYPE = 'idempotent-jobs';

/** The delays by error object, so that nothing is added to the user's error. */
const delays = new WeakMap<object, number>();

/** Notes the delay for an error that is about to be thrown to BullMQ. */
export function carryDelay(error: object, delayMs: number): void {
  delays.set(error, delayMs);
}

/**
 * BullMQ's `settings.backoffStrategy`: the delay that was decided for this error. An error without a decision was
 * thrown around the library; one second is a safe pause, since the redelivery is claimed like any other.
 */
export function backoffStrategy(_attemptsMade: number, _type?: string, error?: Error): number {
  return (error && delays.get(error)) ?? 1000;
}
