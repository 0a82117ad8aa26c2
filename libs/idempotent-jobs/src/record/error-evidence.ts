/** What the ledger keeps of an error: enough to understand it, bounded, without the objects it drags along. */
export interface ErrorEvidence {
  readonly name: string;
  /** At most 10,000 characters. */
  readonly message: string;
  readonly code?: string;
  /** Of an HTTP answer. */
  readonly status?: number;
  /** At most 16,000 characters. */
  readonly stack?: string;
  readonly cause?: ErrorEvidence;
}

const MAX_NAME = 200;
const MAX_MESSAGE = 10_000;
const MAX_STACK = 16_000;
const MAX_CAUSES = 5;

/** Describes anything that was thrown. Never throws, whatever getters or cycles the value has. */
export function describeError(error: unknown, depth = 0): ErrorEvidence {
  try {
    if (!(error instanceof Error)) return { name: typeof error, message: clean(String(error), MAX_MESSAGE) };
    const { code, name, status } = error as { code?: unknown; name: unknown; status?: unknown };
    return {
      name: clean(String(name), MAX_NAME),
      message: clean(error.message, MAX_MESSAGE),
      ...(typeof code === 'string' && { code: clean(code, 100) }),
      ...(Number.isInteger(status) && { status: status as number }),
      ...(typeof error.stack === 'string' && { stack: clean(error.stack, MAX_STACK) }),
      ...(error.cause !== undefined &&
        depth < MAX_CAUSES && { cause: describeError(error.cause, depth + 1) }),
    };
  } catch {
    return { name: 'Error', message: 'The error could not be described: reading it throws.' };
  }
}

/** Cut to length, and without what Postgres's JSON functions refuse. */
function clean(text: string, maxLength: number): string {
  return text.slice(0, maxLength).toWellFormed().replaceAll('\0', '\u{FFFD}');
}
