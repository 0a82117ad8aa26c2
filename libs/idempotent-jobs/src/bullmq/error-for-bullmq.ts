import { UnrecoverableError } from 'bullmq';
import { cleanText } from '../operation/clean-text.js';
import { MAX_SHOWN_MESSAGE } from '../operation/message-of.js';
import { describeError } from '../operation/error-evidence.js';
import { unprocessedReasonOf } from './unprocessed.js';

/** BullMQ keeps a stack with each attempt, and every reader of the job loads all of them. */
const MAX_TOLD_STACK = 4_000;

/** How many stacks of earlier attempts a job keeps, next to the last one. */
const KEPT_STACKS = 9;

/** The classes that BullMQ acts on, by these names. */
const CONTROL_NAMES = new Set([
  'DelayedError',
  'WaitingError',
  'WaitingChildrenError',
  'RateLimitError',
  'UnrecoverableError',
]);

/**
 * What BullMQ is told of an error: a plain copy of its words, cut to length and cleaned. It stores what it is given as it
 * is, which Postgres and Redis may refuse, and acts on names and messages, whoever has written them: the error itself,
 * which may be a stranger's, never reaches it.
 */
export function errorForBullmq(error: unknown): Error {
  return told(error, new Error());
}

/** As {@link errorForBullmq}, of the class that BullMQ never tries again. */
export function finalErrorForBullmq(error: unknown): UnrecoverableError {
  return told(error, new UnrecoverableError());
}

function told<E extends Error>(error: unknown, copy: E): E {
  const { name, message, stack } = describeError(error);
  copy.message = unlikeBullmqsWords(cleanText(message, MAX_SHOWN_MESSAGE - PREFIX.length));
  if (!CONTROL_NAMES.has(copy.name)) copy.name = CONTROL_NAMES.has(name) ? 'Error' : name;
  copy.stack = cleanText(stack ?? `${name}: ${message}`, MAX_TOLD_STACK);
  return copy;
}

const PREFIX = 'Error: ';

/** Of what BullMQ says itself, nobody else's words can be told afterwards. */
function unlikeBullmqsWords(message: string): string {
  const isBullmqs = message.startsWith('bullmq:') || unprocessedReasonOf(message) !== undefined;
  return isBullmqs ? `${PREFIX}${message}` : message;
}

/** Keeps a job that fails again and again from growing with each attempt. */
export function dropOldStacks(job: { stacktrace: string[] | null }): void {
  if (job.stacktrace !== null && job.stacktrace !== undefined)
    job.stacktrace = job.stacktrace.slice(-KEPT_STACKS);
}
