import type { Claim } from '../claim/claim.js';

/** An attempt may take its timeout, but no longer than what is left of the operation's time budget. */
export function attemptTimeoutMs(timeoutMs: number, { remainingMs }: Claim): number {
  return remainingMs === undefined ? timeoutMs : Math.min(timeoutMs, remainingMs);
}
