import { deprecate } from 'node:util';
import { type Failure, MAX_FAILURE_CODE, waitOf } from '../../operation/failure.js';
import { FAILURE_KINDS, type FailureKind } from '../../operation/reasons.js';
import { cleanText, isA, orUndefined, read } from '../../operation/thrown.js';
import { byCode, isWrapper } from './code.js';
import { byPgMessage, bySqlState, byTypeOrmName } from './database.js';
import { signOf } from './failure-sign.js';
import { byAws, byHttpStatus } from './http.js';
import { byName, byOwnCode, bySaying } from './own.js';
import { byMailCode, bySmtpReply } from './smtp.js';

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
    const failure = new Search(overrides).failureOf(error);
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

const MAX_ERRORS = 10;

/** Looks for the failure in an error and in what it wraps: each error once, and at most {@link MAX_ERRORS}. */
class Search {
  readonly #seen = new Set<unknown>();

  constructor(private readonly overrides: Classify | undefined) {}

  failureOf(error: unknown): Failure | undefined {
    if (error === undefined || error === null) return undefined;
    if (this.#seen.has(error) || this.#seen.size >= MAX_ERRORS) return undefined;
    this.#seen.add(error);
    return (
      overridden(this.overrides, error) ??
      firstOf(WORDS, error) ??
      afterJourney(error, firstOf(ANSWERS, error) ?? this.#wrappedIn(error))
    );
  }

  #wrappedIn(error: unknown): Failure | undefined {
    const errors = read(error, 'errors');
    const symptom = firstOf(SYMPTOMS, error);
    return (
      this.#among(Array.isArray(errors) ? errors : []) ??
      (isWrapper(error) ? undefined : symptom) ??
      this.failureOf(read(error, 'driverError')) ??
      this.failureOf(read(error, 'cause')) ??
      symptom
    );
  }

  /**
   * Returns the sibling that leaves a doubt, else the first recognised one. An unrecognised one, or too many to visit,
   * leave a doubt as well: they may belong to the request that was sent.
   */
  #among(errors: readonly unknown[]): Failure | undefined {
    let first: Failure | undefined;
    let hasUnrecognised = false;
    for (const one of errors) {
      if (one === undefined || one === null || this.#seen.has(one)) continue;
      const failure = this.failureOf(one);
      if (failure?.kind === 'in_doubt') return failure;
      first ??= failure;
      hasUnrecognised ||= failure === undefined;
      if (this.#seen.size >= MAX_ERRORS) return first && { kind: 'in_doubt', code: 'too_many_errors' };
    }
    return first && hasUnrecognised ? { kind: 'in_doubt', code: 'partly_unknown' } : first;
  }
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

/**
 * The first rule that recognises an error decides; one that throws or returns nonsense is skipped. Undefined when there
 * are no rules.
 */
export function inOrder(...rules: readonly (Classify | undefined)[]): Classify | undefined {
  const given = rules.filter((rule) => rule !== undefined);
  if (given.length < 2) return given[0];
  return (error) => {
    for (const rule of given) {
      const answer = answerOf(rule, error);
      if (answer !== undefined) return answer;
    }
    return undefined;
  };
}

/** The answer of the application's code, if it is one: an async function, for example, returns a promise. */
function answerOf(rule: Classify | undefined, error: unknown): Failure | FailureKind | undefined {
  return orUndefined(() => {
    const answer = rule?.(error);
    const kind = typeof answer === 'object' ? answer?.kind : answer;
    return kind !== undefined && FAILURE_KINDS.includes(kind) ? answer : undefined;
  });
}

function overridden(overrides: Classify | undefined, error: unknown): Failure | undefined {
  const answer = answerOf(overrides, error);
  if (typeof answer === 'string') return { kind: answer, code: 'classify' };
  // A failure with a sign is of a built-in rule, which has already classified the error in a guarded call.
  if (answer === undefined || signOf(answer) !== undefined) return answer;
  return orUndefined(() => cleaned(answer));
}

function cleaned(answer: Failure): Failure {
  const { kind, code, retryAfterMs, isThrottled } = answer;
  if (code === undefined && 'reason' in answer) warnOfReason();
  const waitMs = waitOf(retryAfterMs);
  return {
    kind,
    code: typeof code === 'string' ? cleanText(code, MAX_FAILURE_CODE) : 'classify',
    ...(waitMs !== undefined && { retryAfterMs: waitMs }),
    ...(isThrottled === true && { isThrottled }),
  };
}

/** Warns once in a process. */
const warnOfReason = deprecate(
  () => undefined,
  'A `classify` function returned a failure with a `reason`, which is lost: the field is called `code`. Return { kind, code }.',
  'IDEMPOTENT_JOBS_CLASSIFY_REASON',
);

/**
 * Corrects a failure when the client had sent the request before: it retried by itself, or followed a redirect. The
 * earlier request may have had its effect, so even a refusal of the last one leaves a doubt.
 */
function afterJourney(error: unknown, failure: Failure | undefined): Failure | undefined {
  if (failure === undefined || failure.kind === 'in_doubt' || failure.kind === 'unknown') return failure;
  if (wasRetried(error)) return { ...failure, kind: 'in_doubt', code: 'client_retried' };
  if (wasRedirected(error)) return { ...failure, kind: 'in_doubt', code: 'redirected' };
  return failure;
}

/** AWS SDK v3 counts its tries, got and axios-retry their retries. */
function wasRetried(error: unknown): boolean {
  return (
    isMoreThan(1, read(read(error, '$metadata'), 'attempts')) ||
    isMoreThan(0, read(read(error, 'request'), 'retryCount')) ||
    isMoreThan(0, read(read(read(error, 'config'), 'axios-retry'), 'retryCount'))
  );
}

/** `fetch` has a flag on its response, got lists the addresses, follow-redirects (axios) counts them. */
function wasRedirected(error: unknown): boolean {
  const request = read(error, 'request');
  const response = read(error, 'response');
  return (
    read(response, 'redirected') === true ||
    isMoreThan(0, read(read(response, 'redirectUrls'), 'length')) ||
    isMoreThan(0, read(read(request, 'redirectUrls'), 'length')) ||
    isMoreThan(0, read(request, '_redirectCount')) ||
    isMoreThan(0, read(read(response, 'request'), '_redirectCount'))
  );
}

function isMoreThan(limit: number, value: unknown): boolean {
  return typeof value === 'number' && value > limit;
}
