/**
 * BullMQ carries the delay between attempts, but does not decide about them: the ledger does. A job is given more
 * attempts than any policy allows and a backoff type that this module answers for.
 */

/** More than any policy's attempts, so that BullMQ never gives up first. */
export const CARRIED_ATTEMPTS = 100_000;

/** The name of the backoff strategy that every idempotent worker brings. */
export const BACKOFF_TYPE = 'idempotent-jobs';

/** Keyed by the error object that goes through BullMQ's hands, so that nothing is added to the user's error. */
const delays = new WeakMap<object, number>();

/** Notes the delay for an error that is about to be thrown to BullMQ. */
export function carryDelay(error: object, delayMs: number): void {
  delays.set(error, delayMs);
}

/**
 * BullMQ's `settings.backoffStrategy`: the delay that was decided for this error. An error nobody decided about was
 * thrown around the library; a second is a safe pause, since the redelivery is claimed like any other.
 */
export function backoffStrategy(_attemptsMade: number, _type?: string, error?: Error): number {
  return (error && delays.get(error)) ?? 1000;
}
