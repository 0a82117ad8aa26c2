/** What `look` answers, or undefined if it throws: errors may be proxies, or have getters that throw. @internal */
export function quietly<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch {
    return undefined;
  }
}

/** A property of whatever was thrown; undefined where there is none. Never throws. @internal */
export function read(holder: unknown, property: string): unknown {
  if (holder === null || (typeof holder !== 'object' && typeof holder !== 'function')) return undefined;
  return quietly(() => (holder as Record<string, unknown>)[property]);
}

/** No service means a longer wait, and Postgres and timers could not count it. */
const MAX_WAIT_MS = 30 * 24 * 60 * 60 * 1000;

/** A wait that makes sense: not in the past, not beyond thirty days; undefined for what is no number. @internal */
export function waitOf(ms: unknown): number | undefined {
  return typeof ms !== 'number' || Number.isNaN(ms) ? undefined : Math.min(Math.max(0, ms), MAX_WAIT_MS);
}
