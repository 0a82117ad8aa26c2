/*
 * How to look at what was thrown. It may be anything: a proxy whose traps throw, an error with getters that do, a cause
 * that leads back to itself. Nothing here ever throws.
 */

/** What `look` answers, or undefined if it throws. */
export function orUndefined<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch {
    return undefined;
  }
}

/** A property of whatever was thrown; undefined where there is none, or reading it throws. */
export function read(holder: unknown, property: string): unknown {
  if (holder === null || (typeof holder !== 'object' && typeof holder !== 'function')) return undefined;
  return orUndefined(() => (holder as Record<string, unknown>)[property]);
}

/** `instanceof`, which throws for a revoked proxy. */
export function isA<T>(value: unknown, kind: abstract new (...args: never[]) => T): value is T {
  return orUndefined(() => value instanceof kind) === true;
}

/** An error and what lies beneath it, outermost first: ten at most. */
export function causesOf(error: unknown): readonly unknown[] {
  const found: unknown[] = [];
  for (let one = error; one !== undefined && one !== null; one = read(one, 'cause')) {
    if (found.length === MAX_DEPTH || found.includes(one)) break;
    found.push(one);
  }
  return found;
}

const MAX_DEPTH = 10;
