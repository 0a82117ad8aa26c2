/*
 * Safe access to what was thrown, which may be anything: a proxy whose traps throw, an error whose getters throw, a cause
 * that leads back to itself. Nothing here ever throws.
 */

/** What `look` returns. Undefined if it throws. */
export function orUndefined<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch {
    return undefined;
  }
}

/** A property of whatever was thrown. Undefined when there is none, or when reading it throws. */
export function read(holder: unknown, property: string): unknown {
  if (holder === null || (typeof holder !== 'object' && typeof holder !== 'function')) return undefined;
  return orUndefined(() => (holder as Record<string, unknown>)[property]);
}

/** `instanceof` that answers false for a revoked proxy, where `instanceof` itself throws. */
export function isA<T>(value: unknown, kind: abstract new (...args: never[]) => T): value is T {
  return orUndefined(() => value instanceof kind) === true;
}

/** An error and its causes, outermost first, at most ten. */
export function causesOf(error: unknown): readonly unknown[] {
  const found: unknown[] = [];
  for (let one = error; one !== undefined && one !== null; one = read(one, 'cause')) {
    if (found.length === MAX_DEPTH || found.includes(one)) break;
    found.push(one);
  }
  return found;
}

const MAX_DEPTH = 10;
