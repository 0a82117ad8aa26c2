import { cleanText, isA, orUndefined, read } from '../../operation/thrown.js';
import { byAws } from './aws.js';
import { byCode, isWrapper } from './code.js';
import { byHttpStatus } from './http.js';
import { afterJourney } from './journey.js';
import { waitOf } from './wait.js';
import { byName, byOwnCode, bySaying } from './own.js';
import { byPgMessage, bySqlState } from './postgres.js';
import { byMailCode, bySmtpReply } from './smtp.js';
import { byTypeOrmName } from './typeorm.js';
import { type Failure, MAX_FAILURE_CODE } from '../../operation/failure.js';
import { FAILURE_KINDS, type FailureKind } from '../../operation/reasons.js';
import { signOf } from './failure-sign.js';

/** Classifies one error of a chain. Undefined when it does not recognise the error. */
export type Classify = (error: unknown) => Failure | FailureKind | undefined;

/**
 * Says what an error means for the side effect. It looks at the error, then at what it wraps: an AggregateError's
 * `errors`, then its own properties, then `driverError` (TypeORM) and `cause`; ten errors at most. A client's error that
 * only repeats the code of its cause is classified by the cause. Of an aggregate's errors the one that leaves a doubt
 * counts, and an unrecognised one leaves a doubt too; otherwise the first recognised one counts. If the client had sent
 * the request before (it retried, or followed a redirect), the effect is in doubt, whatever its last try says. Survives
 * cycles and throwing getters. Never throws.
 *
 * @param overrides asked before the built-in rules; if it throws or returns nonsense, the built-in rules decide
 */
export function classify(error: unknown, overrides?: Classify): Failure {
  try {
    const failure = look(error, overrides, new Set());
    if (failure !== undefined) return failure;
    // A TypeError, but no bug: fetch wraps every network failure, and the cause, which is unknown here, says how far it
    // got.
    if (read(error, 'message') === 'fetch failed') return { kind: 'in_doubt', code: 'fetch_failed' };
    if (isBug(error))
      return { kind: 'programming', code: cleanText(String(read(error, 'name')), MAX_FAILURE_CODE) };
  } catch {
    // A proxy that throws on any access.
  }
  return { kind: 'unknown', code: 'unclassified' };
}

/** SyntaxError is left out: it comes from parsing an answer, so that a request was sent. */
function isBug(error: unknown): boolean {
  return isA(error, TypeError) || isA(error, ReferenceError) || isA(error, RangeError);
}

/** Rules for what the application says on purpose. */
const WORDS = [byOwnCode, bySaying];

/** Rules for what the other side answered. They go before the errors that this one wraps. */
const ANSWERS = [byAws, byHttpStatus, bySmtpReply];

/** Rules for what was noticed on this side. An aggregate's errors, which know more, go before them. */
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
 * Returns the sibling that leaves a doubt, else the first recognised one. An unrecognised one, or too many to look at,
 * leave a doubt as well: they may belong to the request that was sent.
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
  const failure = typeof answer === 'string' ? { kind: answer, code: 'classify' } : answer;
  return failure === undefined || failure === null ? undefined : orUndefined(() => wordOf(failure));
}

/** Checks the answer of the application's code: an async function, for example, returns a promise. */
function wordOf(failure: Failure): Failure | undefined {
  // A built-in rule has already classified the error, in a guarded call.
  if (signOf(failure) !== undefined) return failure;
  const { kind, code: reason, retryAfterMs, isThrottled } = failure;
  if (!FAILURE_KINDS.includes(kind)) return undefined;
  const waitMs = waitOf(retryAfterMs);
  return {
    kind,
    code: typeof reason === 'string' ? cleanText(reason, MAX_FAILURE_CODE) : 'classify',
    ...(waitMs !== undefined && { retryAfterMs: waitMs }),
    ...(isThrottled === true && { isThrottled }),
  };
}
