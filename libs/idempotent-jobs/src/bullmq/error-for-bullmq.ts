import { UnrecoverableError } from 'bullmq';
import { cleanText, describeError, MAX_SHOWN_MESSAGE } from '../operation/thrown.js';
import { unprocessedReasonOf } from './unprocessed.js';

/*
 * BullMQ carries the delay between attempts, but the ledger decides about them. A job gets more attempts than any
 * policy allows, and a backoff type that this module implements.
 */

/** More than any policy's attempts, so that BullMQ never gives up first. */
export const CARRIED_ATTEMPTS = 100_000;

/** The name of the backoff strategy that every idempotent worker brings. */
export const BACKOFF_TYPE = 'idempotent-jobs';

/** The delays by error object, so that nothing is added to the user's error. */
const delays = new WeakMap<object, number>();

/** Notes the delay for an error that is about to be thrown to BullMQ. */
export function withDelay<E extends Error>(error: E, delayMs: number): E {
  delays.set(error, delayMs);
  return error;
}

/**
 * BullMQ's `settings.backoffStrategy`: the delay that was decided for this error. An error without a decision was
 * thrown around the library; one second is a safe pause, since the redelivery is claimed like any other.
 */
export function backoffStrategy(_attemptsMade: number, _type?: string, error?: Error): number {
  return (error && delays.get(error)) ?? 1000;
}

/**
 * The largest stack that BullMQ gets, in characters: it keeps one for each attempt, and every reader of the job loads
 * all of them.
 */
const MAX_TOLD_STACK = 4_000;

/** How many stacks of earlier attempts a job keeps, next to the last one. */
const KEPT_STACKS = 9;

/** The names of the error classes that BullMQ acts on. */
const CONTROL_NAMES = new Set([
  'DelayedError',
  'WaitingError',
  'WaitingChildrenError',
  'RateLimitError',
  'UnrecoverableError',
]);

/**
 * The error that BullMQ gets: a plain copy of the texts, cut to length and cleaned. BullMQ stores texts as they are,
 * which Postgres and Redis may refuse, and acts on an error's name and message, even if a foreign service wrote them.
 * So the original error never reaches it.
 */
export function errorForBullmq(error: unknown): Error {
  return told(error, new Error());
}

/** As {@link errorForBullmq}, but of the class that BullMQ never retries. */
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

/** Adds a prefix to a message that looks like one of BullMQ's own, so that the two can be told apart later. */
function unlikeBullmqsWords(message: string): string {
  const isBullmqs = message.startsWith('bullmq:') || unprocessedReasonOf(message) !== undefined;
  return isBullmqs ? `${PREFIX}${message}` : message;
}

/** Keeps a job from growing with each failed attempt. */
export function dropOldStacks(job: { stacktrace: string[] | null }): void {
  if (job.stacktrace !== null && job.stacktrace !== undefined)
    job.stacktrace = job.stacktrace.slice(-KEPT_STACKS);
}
