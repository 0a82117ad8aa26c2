/*
 * What was thrown may be anything: a proxy whose traps throw, an error whose getters throw, a cause that leads back to
 * itself. Here are safe access to it, its message, and the evidence of it that is kept. Nothing here ever throws.
 */

/** What `get` returns. Undefined if it throws. */
export function orUndefined<T>(get: () => T): T | undefined {
  try {
    return get();
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

/** The longest message in logs, events, job logs and BullMQ, in characters. The ledger keeps more. */
export const MAX_SHOWN_MESSAGE = 2_000;

/** The message of anything that was thrown, cut to length, and without characters that Postgres refuses. Never throws. */
export function messageOf(error: unknown, maxLength = MAX_SHOWN_MESSAGE): string {
  return cleanText(orUndefined(() => wordsOf(error)) ?? `a thrown ${typeof error}`, maxLength);
}

function wordsOf(error: unknown): string {
  if (error === null || error === undefined) return `a thrown ${error}`;
  if (typeof error !== 'object') return textOf(error);
  const message = read(error, 'message');
  if (typeof message === 'string') return message;
  // Nest's responses have lists and objects in place of a message.
  if (message !== undefined && message !== null) return JSON.stringify(message) ?? textOf(message);
  const text = textOf(error);
  return text === '[object Object]' ? 'a thrown object' : text;
}

/** The value as text, which may say nothing useful. */
const textOf = (value: unknown): string => String(value);

/**
 * Makes a text fit for the ledger, BullMQ and logs: cut to length, with U+FFFD in place of the NUL characters and lone
 * surrogates that Postgres refuses.
 */
export function cleanText(text: string, maxLength = Infinity): string {
  const cut = text.length > maxLength ? text.slice(0, maxLength) : text;
  return cut.isWellFormed() && !cut.includes('\0') ? cut : cut.toWellFormed().replaceAll('\0', '\u{FFFD}');
}

/** What the ledger keeps of an error: enough to understand it, limited in size, without the objects that hang on it. */
export interface ErrorEvidence {
  readonly name: string;
  /** At most 10,000 characters. */
  readonly message: string;
  readonly code?: string;
  /** The status of an HTTP response. */
  readonly status?: number;
  /** At most 16,000 characters. */
  readonly stack?: string;
  readonly cause?: ErrorEvidence;
}

const MAX_NAME = 200;
const MAX_CODE = 100;
const MAX_MESSAGE = 10_000;
const MAX_STACK = 16_000;
const MAX_CAUSES = 5;

/** Describes anything that was thrown. Never throws, whatever getters, traps or cycles the value has. */
export function describeError(error: unknown, depth = 0): ErrorEvidence {
  const [code, status, stack, cause] = ['code', 'status', 'stack', 'cause'].map((name) => read(error, name));
  return {
    name: nameOf(error),
    message: messageOf(error, MAX_MESSAGE),
    ...(typeof code === 'string' && { code: cleanText(code, MAX_CODE) }),
    ...(Number.isInteger(status) && { status: status as number }),
    ...(typeof stack === 'string' && { stack: cleanText(stack, MAX_STACK) }),
    ...(cause !== undefined && depth < MAX_CAUSES && { cause: describeError(cause, depth + 1) }),
  };
}

/** An error's own name; for anything else its class, or its type when it has no class. */
function nameOf(error: unknown): string {
  const names = [read(error, 'name'), read(read(error, 'constructor'), 'name')];
  const name = names.find((one): one is string => typeof one === 'string' && one !== '');
  return cleanText((error !== null && typeof error === 'object' && name) || typeof error, MAX_NAME);
}
