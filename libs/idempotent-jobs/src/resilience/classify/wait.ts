/** No service means a longer wait, and Postgres and timers could not represent it. */
const MAX_WAIT_MS = 30 * 24 * 60 * 60 * 1000;

/** A sensible wait: not in the past, at most thirty days. Undefined for anything but a number. @internal */
export function waitOf(ms: unknown): number | undefined {
  return typeof ms !== 'number' || Number.isNaN(ms) ? undefined : Math.min(Math.max(0, ms), MAX_WAIT_MS);
}
