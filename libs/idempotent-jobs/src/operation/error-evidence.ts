import { cleanText } from './clean-text.js';
import { messageOf } from './message-of.js';
import { read } from './thrown.js';

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
