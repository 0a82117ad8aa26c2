import { cleanText } from '../../operation/clean-text.js';
import { isA, orUndefined, read } from '../../operation/thrown.js';
import { byAws } from './aws.js';
import { byCode, isWrapper } from './code.js';
import { byHttpStatus } from './http.js';
import { afterJourney } from './journey.js';
import { waitOf } from './wait.js';
import { byName, byOwnCode, bySaying } from './own.js';
import { byPgMessage, bySqlState } from './postgres.js';
import { byMailCode, bySmtpReply } from './smtp.js';
import { byTypeOrmName } from './typeorm.js';
import { type Failure, MAX_REASON } from '../../operation/failure.js';
import { FAILURE_KINDS, type FailureKind } from '../../operation/reasons.js';
import { signOf } from './failure-sign.js';

/** A look at one error of a chain: its kind if it tells, else undefined. */
export type Classify = (error: unknown) => Failure | FailureKind | undefined;

/**
 * Says what an error tells about the side effect. Looks at the error and at what lies beneath it: an AggregateError's
 * `errors`, then its own properties, then `driverError` (TypeORM) and `cause`; ten errors at most. A client's error
 * that only repeats the code of its cause goes by the cause. Among the errors of an aggregate the one that leaves a doubt
 * counts, and one that says nothing is one; else the first that tells something. A client that had sent the request before
 * (it retried, or followed a redirect) leaves a doubt, whatever its last try says. Survives cycles and throwing getters. Never throws.
 *
 * @param overrides asked before the built-in rules; may throw or answer nonsense, which counts as not knowing
 */
export function classify(error: unknown, overrides?: Classify): Failure {
  try {
    const failure = look(error, overrides, new Set());
    if (failure !== undefined) return failure;
    // A TypeError, but no bug: fetch wraps whatever happened on the way, and how far it got is in a cause nobody knows.
    if (read(error, 'message') === 'fetch failed') return { kind: 'in_doubt', code: 'fetch_failed' };
    if (isBug(error))
      return { kind: 'programming', code: cleanText(String(read(error, 'name')), MAX_REASON) };
  } catch {
    // A proxy that cannot even be looked at.
  }
  return { kind: 'unknown', code: 'unclassified' };
}

/** Not SyntaxError: it comes from parsing an answer, and an answer says that something was there to give it. */
function isBug(error: unknown): boolean {
  return isA(error, TypeError) || isA(error, ReferenceError) || isA(error, RangeError);
}

/** What was said on purpose. */
const WORDS = [byOwnCode, bySaying];

/** What was answered by the other side: goes before what lies beneath. */
const ANSWERS = [byAws, byHttpStatus, bySmtpReply];

/** What was noticed on this side: an aggregate's errors know more. */
const SYMPTOMS = [bySqlState, byMailCode, byCode, byPgMessage, byTypeOrmName, byName];

const MAX_LOOKS = 10;

function look(error: unknown, overrides: Classify | undefined, seen: Set<unknown>): Failure | undefined {
  if (error === undefined || error === null || seen.has(error) || seen.size >= MAX_LOOKS) return undefined;
  seen.add(error);
  const word = asked(overrides, error) ?? firstOf(WORDS, error);
  return word ?? afterJourney(error, firstOf(ANSWERS, error) ?? lookBeneath(error, overrides, seen));
}

function lookBeneath(
  error: unknown,
  overrides: Classify | undefined,
  seen: Set<unknown>,
): Failure | undefined {
  const errors = read(error, 'errors');
  const symptom = firstOf(SYMPTOMS, error);
  return (
    lookAmong(Array.isArray(errors) ? errors : [], overrides, seen) ??
    (isWrapper(error) ? undefined : symptom) ??
    look(read(error, 'driverError'), overrides, seen) ??
    look(read(error, 'cause'), overrides, seen) ??
    symptom
  );
}

/**
 * The sibling that leaves a doubt, else the first that tells something. One that tells nothing, and too many to look at,
 * leave a doubt as well: they may be the ones that were sent.
 */
function lookAmong(
  errors: readonly unknown[],
  overrides: Classify | undefined,
  seen: Set<unknown>,
): Failure | undefined {
  let first: Failure | undefined;
  let isMute = false;
  for (const one of errors) {
    if (one === undefined || one === null || seen.has(one)) continue;
    const failure = look(one, overrides, seen);
    if (failure?.kind === 'in_doubt') return failure;
    first ??= failure;
    isMute ||= failure === undefined;
    if (seen.size >= MAX_LOOKS) return first && { kind: 'in_doubt', code: 'too_many_errors' };
  }
  return first && isMute ? { kind: 'in_doubt', code: 'partly_unknown' } : first;
}

function firstOf(
  rules: readonly ((error: unknown) => Failure | undefined)[],
  error: unknown,
): Failure | undefined {
  for (const rule of rules) {
    const failure = orUndefined(() => rule(error));
    if (failure !== undefined) return failure;
  }
  return undefined;
}

function asked(overrides: Classify | undefined, error: unknown): Failure | undefined {
  const answer = orUndefined(() => overrides?.(error));
  const failure = typeof answer === 'string' ? { kind: answer, reason: 'classify' } : answer;
  return failure === undefined || failure === null ? undefined : orUndefined(() => wordOf(failure));
}

/** Somebody's own code: an async function, for one, answers a promise. */
function wordOf(failure: Failure): Failure | undefined {
  // A built-in rule of a guarded call has looked at the error before.
  if (signOf(failure) !== undefined) return failure;
  const { kind, code: reason, retryAfterMs, isThrottled } = failure;
  if (!FAILURE_KINDS.includes(kind)) return undefined;
  const waitMs = waitOf(retryAfterMs);
  return {
    kind,
    code: typeof reason === 'string' ? cleanText(reason, MAX_REASON) : 'classify',
    ...(waitMs !== undefined && { retryAfterMs: waitMs }),
    ...(isThrottled === true && { isThrottled }),
  };
}
