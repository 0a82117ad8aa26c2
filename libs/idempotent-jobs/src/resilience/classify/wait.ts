/** No service means a longer wait, and Postgres and timers could not count it. */
const MAX_WAIT_MS = 30 * 24 * 60 * 60 * 1000;

/** A wait that makes sense: not in the past, not beyond thirty days; undefined for what is no number. @internal */
export function waitOf(ms: unknown): number | undefined {
  return typeof ms !== 'number' || Number.isNaN(ms) ? undefined : Math.min(Math.max(0, ms), MAX_WAIT_MS);
}
